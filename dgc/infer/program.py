"""A finished program: operations, the numbers they point at, and memory; run by one call into the
kernels.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgc.kernels.cpu.library import ELSEWHERE, Library
from dgc.kernels.cpu.structs import Op, Program, Run

CHUNK = 64  # samples at once, so that memory stays bounded


def _pages(count: int) -> NDArray[np.float32]:
    """Zeroed floats in large pages where the system has them: weights and planes touch thousands of
    small ones.
    """
    # an AddressSanitizer watches what the allocator gives out, not pages
    if ELSEWHERE in os.environ:
        return np.zeros(max(1, count), np.float32)
    size = max(4, count * 4)
    if hasattr(mmap, "MAP_PRIVATE"):
        # shared memory gets no large pages
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.float32)


class Constants:
    """Arrays that operations point at, copied side by side into large pages once all are known."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.generic]] = []
        self._known: dict[bytes, int] = {}
        self._memory: NDArray[np.float32] | None = None
        self._starts: list[int] = []

    def add(self, array: NDArray[np.generic] | Tensor) -> int:
        """A ticket for `address`."""
        if isinstance(array, Tensor):
            array = array.detach().contiguous().numpy()
        self._arrays.append(np.ascontiguousarray(array))
        return len(self._arrays) - 1

    def freeze(self) -> None:
        sizes = [-(-a.nbytes // 64) * 64 for a in self._arrays]
        self._starts = np.cumsum([0, *sizes]).tolist()
        self._memory = _pages(self._starts[-1] // 4)
        raw = self._memory.view(np.uint8)
        for start, array in zip(self._starts, self._arrays, strict=False):
            raw[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        self._arrays.clear()

    def address(self, ticket: int) -> int:
        assert self._memory is not None
        return int(self._memory.ctypes.data) + self._starts[ticket]


@dataclass
class Plan:
    """One network at one image size."""

    ops: Sequence[Op]
    constants: Constants
    thread_floats: int
    sample_floats: int
    scratch_floats: int
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    _arena: NDArray[np.float32] | None = field(default=None, repr=False)
    _arena_for: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self._ops = (Op * len(self.ops))(*self.ops)
        sizes = (self.thread_floats, self.sample_floats, self.scratch_floats)
        numbers = (int(np.prod(self.in_shape)), int(np.prod(self.out_shape)))
        self._program = Program(self._ops, len(self.ops), *sizes, *numbers)

    def _memory(self, samples: int, threads: int) -> int:
        # The layout inside depends on both numbers, and padding must be zero, so a change starts
        # from fresh pages.
        if self._arena is None or self._arena_for != (samples, threads):
            self._arena = None
            floats = (
                threads * (self.thread_floats + self.scratch_floats) + samples * self.sample_floats
            )
            self._arena, self._arena_for = _pages(floats), (samples, threads)
        return int(self._arena.ctypes.data)

    def run(
        self,
        x_BCHW: Tensor,
        library: Library,
        threads: int,
        seconds: NDArray[np.float64] | None = None,
        chunk: int = CHUNK,
    ) -> Tensor:
        """(B, *in_shape) -> (B, *out_shape), both contiguous float32.

        `seconds`, one for each operation, are counted up by what the first thread spends in it.
        """
        timer = None if seconds is None else seconds.ctypes.data
        y = torch.empty(x_BCHW.shape[0], *self.out_shape)
        for xs, ys in zip(torch.split(x_BCHW, chunk), torch.split(y, chunk), strict=True):
            arena = self._memory(xs.shape[0], threads)
            program = ctypes.pointer(self._program)
            library.run(
                Run(program, xs.data_ptr(), ys.data_ptr(), arena, xs.shape[0], threads, timer)
            )
        return y
