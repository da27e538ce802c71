"""A finished program and the memory that it works in; run by one call into the kernels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgc.kernels.cpu.block import Bytes, ops_of, pages, program_of
from dgc.kernels.cpu.library import Library
from dgc.kernels.cpu.structs import Op, Run

CHUNK = 64  # samples at once, so that memory stays bounded


@dataclass
class NativePlan:
    """One network at one image size. The block may lie in read-only memory."""

    block: Bytes
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    paths: tuple[str, ...] = ()  # in which module each operation was met; empty for one from a file
    _workspace: NDArray[np.float32] | None = field(default=None, repr=False)
    _workspace_for: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self._program = program_of(self.block)

    @property
    def ops(self) -> list[Op]:
        """Copies of the operations, in their order."""
        return ops_of(self.block)

    def _memory(self, samples: int, threads: int) -> NDArray[np.float32]:
        # The layout inside depends on both numbers, and padding must be zero, so a change starts
        # from fresh pages.
        if self._workspace is None or self._workspace_for != (samples, threads):
            p = self._program
            self._workspace = None
            self._workspace = pages(
                threads * (p.thread_floats + p.scratch_floats) + samples * p.sample_floats
            )
            self._workspace_for = (samples, threads)
        return self._workspace

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
            work = self._memory(xs.shape[0], threads)
            room = (work.ctypes.data, work.size)
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
        return y
