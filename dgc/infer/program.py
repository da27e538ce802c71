"""A finished program and the memory that it works in; run by one call into the kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgc.kernels.cpu.block import Bytes, ops_of, pages, program_of
from dgc.kernels.cpu.library import Library
from dgc.kernels.cpu.structs import Op, Run

CHUNK = 64  # samples at once, so that memory stays bounded


class Workspace(NamedTuple):
    """Memory for so many samples at once and threads."""

    memory: NDArray[np.float32]
    samples: int
    threads: int


@dataclass
class NativePlan:
    """One network at one image size. The block may lie in read-only memory."""

    block: Bytes
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    paths: tuple[str, ...] = ()  # in which module each operation was met; empty for one from a file
    # the memory of the last run, or of none while one is at it
    _idle: list[Workspace] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._program = program_of(self.block)

    @property
    def ops(self) -> list[Op]:
        """Copies of the operations, in their order."""
        return ops_of(self.block)

    @property
    def held(self) -> int:
        """Bytes of the program and of the memory that it keeps."""
        return self.block.nbytes + sum(idle.memory.nbytes for idle in self._idle[:])

    def _workspace(self, samples: int, threads: int) -> Workspace:
        """Memory for this run alone. One of another thread takes fresh pages meanwhile."""
        try:
            idle = self._idle.pop()
        except IndexError:
            idle = None
        # The layout inside depends on both numbers, and padding must be zero, so a change starts
        # from fresh pages.
        if idle is not None and (idle.samples, idle.threads) == (samples, threads):
            return idle
        p = self._program
        del idle  # before as much again is taken
        floats = threads * (p.thread_floats + p.scratch_floats) + samples * p.sample_floats
        return Workspace(pages(floats), samples, threads)

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
        block = (self.block.ctypes.data, self.block.nbytes, 0)
        y = torch.empty(x_BCHW.shape[0], *self.out_shape)
        for xs, ys in zip(torch.split(x_BCHW, chunk), torch.split(y, chunk), strict=True):
            space = self._workspace(xs.shape[0], threads)
            room = (space.memory.ctypes.data, space.memory.size)
            library.run(
                Run(
                    *block,
                    xs.data_ptr(),
                    ys.data_ptr(),
                    *room,
                    xs.shape[0],
                    threads,
                    library.feature_bits,
                    timer,
                )
            )
            self._idle[:] = [space]
        return y
