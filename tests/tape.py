"""A stand-in for a CUDA graph on a machine without a GPU.

Like a graph, a tape repeats the operations that were captured on the memory that they were captured
on, and runs no Python in between: numbers of the host are those of the capture, and a value that is
read there is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert f._schema.name != "aten::_local_scalar_dense", "a number is read on the host"
        out = f(*args, **(kwargs or {}))
        self.calls.append((f, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        with torch._C._AutoDispatchBelowAutograd():  # where the calls were recorded
            self._replay()

    def _replay(self) -> None:
        for f, args, kwargs, out in self.calls:
            given = {_memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
            made = tree_leaves(f(*args, **kwargs))
            for old, new in zip(tree_leaves(out), made, strict=True):
                # what lies in memory of its own; views and what was written in place are there
                if isinstance(old, Tensor) and _memory(old) not in given and "empty" not in str(f):
                    old.copy_(new)


def _memory(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


class TapeCapturing:
    """Captures onto tapes; counts them."""

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0
        self.outside = 0

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        self.outside += 1
        return work()

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.captures += 1
        tape = Tape()
        with tape:
            row = work()
        repeats = False

        def replay() -> Tensor:
            # a tape computes what it captures, a graph does not: the first time is done
            nonlocal repeats
            if repeats:
                tape.replay()
            repeats = True
            self.replays += 1
            return row.clone()

        return replay
