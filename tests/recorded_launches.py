"""Launches of Triton kernels on tensors without content: nothing runs, what would have been launched
is noted, and can be compiled for a GPU that is not here or counted beside PyTorch's own operations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

_TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int32: "i32",
    torch.int64: "i64",
}


class RecordedLaunch(NamedTuple):
    """A kernel, what it was called with by name, and how it is to run (warps, stages)."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, int]

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    @property
    def tensors(self) -> list[Tensor]:
        return [value for value in self.arguments.values() if isinstance(value, Tensor)]

    @property
    def bytes(self) -> int:
        """Of all that it is handed, each tensor once; a selected list is counted whole."""
        unique = {id(t): t for t in self.tensors}.values()
        return sum(t.numel() * t.element_size() for t in unique)

    def source(self) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int, ...], Any]]:
        """Signature, constants and alignments, as Triton makes them of these arguments."""
        signature: dict[str, str] = {}
        constants: dict[str, Any] = {}
        attributes: dict[tuple[int, ...], Any] = {}
        for number, parameter in enumerate(self.kernel.params):
            value = self.arguments[parameter.name]
            plain = parameter.do_not_specialize
            if (
                parameter.is_constexpr
                or value is None
                or (_int(value) and value == 1 and not plain)
            ):
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[parameter.name] = f"*{_TYPES[value.dtype]}"
                attributes[number,] = [["tt.divisibility", 16]]
            elif _int(value):
                signature[parameter.name] = "i32" if abs(value) < 1 << 31 else "i64"
                if value % 16 == 0 and not plain:
                    attributes[number,] = [["tt.divisibility", 16]]
            else:
                signature[parameter.name] = "fp32"
        return signature, constants, attributes


def _int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@contextlib.contextmanager
def recorded_launches() -> Iterator[list[RecordedLaunch]]:
    """Within the block kernels of Triton are noted and not run."""
    from triton.runtime.jit import JITFunction

    found: list[RecordedLaunch] = []

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **more: Any) -> None:
        names = [parameter.name for parameter in self.params]
        arguments = dict(zip(names, args, strict=False))
        options = {key: value for key, value in more.items() if key not in names}
        arguments |= {key: value for key, value in more.items() if key in names}
        assert arguments.keys() == set(names), set(names) - arguments.keys()
        found.append(RecordedLaunch(self, arguments, options))

    with mock.patch.object(JITFunction, "run", run):
        yield found
