"""The front of the engine: a module in, a module out."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dgc.errors import ArgumentError
from dgc.infer.fuse import fuse
from dgc.infer.graph import Node, UnknownError, read
from dgc.infer.lower import Lowering
from dgc.infer.lower_int8 import Int8Lowering
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.layers import DynamicGroupConv2d

Precision = Literal["float32", "int8"]
LOWERINGS: dict[Precision, type[Lowering]] = {"float32": Lowering, "int8": Int8Lowering}


class NativeModule(nn.Module):
    """A module that runs as a native plan, made anew for each image size; anything else it is given
    runs as `original`, whose parts are compiled as soon as an image size is met for which the whole
    has no plan.

    Holds a snapshot of the weights: what `original` learns afterwards is not seen.
    """

    def __init__(self, original: nn.Module, precision: Precision = "float32") -> None:
        super().__init__()
        self.original, self.precision = original, precision
        self._graph: Node = fuse(read(original))
        self._plans: dict[tuple[int, ...], NativePlan | None] = {}

    def __getattr__(self, name: str) -> Any:
        """What a network reads off one of its parts (`self.conv.weight`) is still there when the
        part is compiled.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("original"), name)

    def forward(self, x_BCHW: Tensor, *more: Any, **named: Any) -> Tensor:
        if more or named:  # a plan takes the image alone
            other: Tensor = self.original(x_BCHW, *more, **named)
            return other
        plan = None if torch.compiler.is_compiling() else self.plan_for(x_BCHW)
        loaded = library.load()
        if plan is None or loaded is None:
            y: Tensor = self.original(x_BCHW)
            return y
        return plan.run(x_BCHW.detach().contiguous(), loaded, torch.get_num_threads())

    def plan_for(self, x_BCHW: Tensor) -> NativePlan | None:
        """The plan for images like these; None if they run through the original module."""
        if (
            x_BCHW.dim() != 4
            or x_BCHW.dtype != torch.float32
            or x_BCHW.device.type != "cpu"
            or len(x_BCHW) == 0
        ):
            return None
        shape = tuple(x_BCHW.shape[1:])
        if shape not in self._plans:
            try:
                lowering = LOWERINGS[self.precision]
                self._plans[shape] = lowering(self._graph, (shape[0], shape[1], shape[2])).plan()
            except UnknownError:
                self._plans[shape] = None
                _compile_parts(self.original, self.precision)
        return self._plans[shape]


def compile_for_inference(model: nn.Module, *, precision: Precision = "float32") -> nn.Module:
    """`model` (in evaluation mode, float32, on the CPU) for fast inference: the same logits up to
    rounding.

    `precision="int8"`: convolutions in bytes and classifier in 16 bits, so the logits are near
    those in float32; they have the same bits on every machine, for any number of threads and
    any batch. `dgc.compare_precisions` says how near.

    A network made of operations that the kernels know becomes one program; in any other, the
    largest parts that hold DynamicGroupConv2d layers do, and the rest runs as it was. The given
    model is left as it is; without the native library it is returned, with one warning that says
    why.
    """
    if library.load() is None:
        warnings.warn(f"no native kernels: {library.describe()['why_not']}", stacklevel=2)
        return model
    return _compiled(copy.deepcopy(model).eval(), check_choice(precision))


def check_choice(precision: str) -> Precision:
    """Raises ArgumentError for a precision that there is not."""
    for known in LOWERINGS:
        if precision == known:
            return known
    raise ArgumentError(f"precision {precision!r}: there are {' and '.join(LOWERINGS)}")


def _compiled(module: nn.Module, precision: Precision) -> nn.Module:
    try:
        return NativeModule(module, precision)
    except UnknownError:
        _compile_parts(module, precision)
        return module


def _compile_parts(module: nn.Module, precision: Precision) -> None:
    """Put compiled ones in the place of the children that hold dynamic layers, where that is not
    done yet.
    """
    for name, child in module.named_children():
        if not isinstance(child, NativeModule) and any(
            isinstance(m, DynamicGroupConv2d) for m in child.modules()
        ):
            setattr(module, name, _compiled(child, precision))
