"""How the kernels of `src/train/norm.cpp` are called, and what of them needs no image."""

from __future__ import annotations

import ctypes
from ctypes import c_int64

import torch
from torch import Tensor

from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Norm, NormPass


def turned(matrices: Tensor) -> Tensor:
    """(N, rows, columns) -> (N, columns, rows), both contiguous."""
    n, rows, columns = matrices.shape
    y, t = matrices.new_empty(n, columns, rows), Norm()
    t.samples, t.channels, t.height, t.width = n, 1, rows, columns
    t.x, t.x_step = matrices.data_ptr(), rows * columns
    t.y, t.y_step = y.data_ptr(), rows * columns
    run(NormPass.NORM_TURN, t)
    return y


def threads(t: Norm) -> int:
    """Never more than samples."""
    return max(1, min(torch.get_num_threads(), int(t.samples)))


def run(op: NormPass, t: Norm) -> None:
    """With scratch for each thread, as much as the library asks for."""
    loaded = library.load()
    assert loaded is not None
    t.op, t.threads = int(op), threads(t)
    room = loaded.handle.dgc_norm_room
    room.restype = c_int64
    t.scratch_step = room(ctypes.byref(t))
    scratch = torch.empty(t.threads * t.scratch_step)
    t.scratch = scratch.data_ptr()
    loaded.handle.dgc_norm(ctypes.byref(t), loaded.isa)
