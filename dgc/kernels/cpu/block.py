"""A native program as one block of memory without an address in it, so that it can be copied, or
mapped from a file (see DgcProgram in src/infer/abi.h). No torch.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgc.kernels.cpu.library import ELSEWHERE
from dgc.kernels.cpu.structs import Op, Program

LINE = 64  # bytes of a cache line: each constant starts at a multiple

Bytes = NDArray[np.uint8]


def pages(floats: int) -> NDArray[np.float32]:
    """Zeroed floats in large pages where the system has them:
    weights and planes touch thousands of small ones.
    """
    # an AddressSanitizer watches what the allocator gives out, not pages
    if ELSEWHERE in os.environ:
        given = np.zeros(max(1, floats) + LINE // 4, np.float32)
        skip = -given.ctypes.data % LINE // 4  # kernels store to whole lines of the cache
        return given[skip : skip + max(1, floats)]
    size = max(4, floats * 4)
    if hasattr(mmap, "MAP_PRIVATE"):
        # shared memory gets no large pages
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.float32)


def _up(n: int) -> int:
    return -(-n // LINE) * LINE


class BlockBuilder:
    """Lays constants side by side behind the room for the program's header, and the operations,
    which say where they lie, behind them.
    """

    def __init__(self) -> None:
        self._end = _up(ctypes.sizeof(Program))
        self._placed: list[tuple[int, NDArray[np.generic]]] = []

    def add(self, array: NDArray[np.generic]) -> int:
        """Where the array will lie: its offset in bytes, never 0."""
        start = self._end
        self._placed.append((start, np.ascontiguousarray(array)))
        self._end = _up(start + array.nbytes)
        return start

    def build(
        self,
        ops: Sequence[Op],
        sizes: tuple[int, int, int],
        io: tuple[int, int],
        exact: bool = False,
    ) -> Bytes:
        """The block: `sizes` are the floats of workspace per thread, per sample and of scratch,
        `io` those of an input and an output; `exact` says that it is a plan in 8 bits.
        """
        # the header names the operations' place, which is known only now: behind the last constant
        listed = (Op * len(ops))(*ops)
        head = Program(self._end, len(ops), *sizes, *io, int(exact))
        block = pages(_up(self._end + ctypes.sizeof(listed)) // 4).view(np.uint8)
        for start, array in self._placed:
            # flat, whatever the array's shape: the kernels know the shape from the operation
            block[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        _put(block, 0, head)
        _put(block, self._end, listed)
        # the constants are in the block; a second `build` must not find those of the first
        self._placed.clear()
        return block


def _put(block: Bytes, start: int, structure: Any) -> None:
    raw = np.frombuffer(structure, np.uint8)
    block[start : start + raw.size] = raw


def program_of(block: Bytes) -> Program:
    """The header of the program at the start of a block."""
    return Program.from_buffer_copy(block[: ctypes.sizeof(Program)].tobytes())


def ops_of(block: Bytes) -> list[Op]:
    """Copies of the operations of the program at the start of a block."""
    program = program_of(block)
    return list((Op * program.count).from_buffer_copy(block[program.ops :]))
