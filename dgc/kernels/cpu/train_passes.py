"""Passes over a batch for training, as the kernels in `src/train` make them: float32 on the CPU.

Legend: B samples, C channels, G heads, K capacity of a head's list, T taps, J outputs of a head.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int64
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgc.kernels.cpu import library
from dgc.kernels.cpu.layout import Window
from dgc.kernels.cpu.norm_call import turned
from dgc.kernels.cpu.structs import Pass, Planes, Train


def available() -> bool:
    return library.load() is not None


def is_cpu_float32(*tensors: Tensor) -> bool:
    """Whether the kernels were built and these are what they work on: float32 on the CPU."""
    return available() and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)


def is_nchw_contiguous(x: Tensor) -> bool:
    """Whether the kernels can read x as it lies: four dimensions, and each sample's channels one
    after the other; samples may lie apart.
    """
    if x.dim() != 4:
        return False
    h, w = x.shape[2:]
    return x.stride()[1:] == (h * w, w, 1) and x.numel() > 0


def planes(x: Tensor) -> Tensor:
    """x (B, C, H, W), copied where it is not NCHW-contiguous."""
    return x if is_nchw_contiguous(x) else x.contiguous()


class Affine(NamedTuple):
    """a = relu(x * scale + shift) of each channel, both (C,);
    `mean` (C,) is subtracted where sums of x are taken.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor


class SelectedChannels(NamedTuple):
    """Each head's channels, ascending: how many (B, G)
    and which (B, G, K), int32, and their gates (B, G, K).
    """

    counts: Tensor
    channels: Tensor
    gates: Tensor


class PlaneMoments(NamedTuple):
    """Of each plane: mean, and sum of squares around it, both (B, C)."""

    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class PassShape:
    """A convolution at one image size;
    dynamic, or (`static`) with each group reading its own channels.
    """

    channels: int
    size: tuple[int, int]
    heads: int
    outs: int  # of a head
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]
    dilation: tuple[int, int]
    static: bool = False

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.padding, self.dilation)

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def own(self) -> int:
        return self.channels // self.heads if self.static else 0

    def pack(self, weight_OCkk: Tensor) -> Tensor:
        """(O, C or C / G, kh, kw) as (G, C, T, J)."""
        # outputs last: the kernels read neighbouring outputs as one vector
        by_head = turned(weight_OCkk.detach().contiguous().view(self.heads, self.outs, -1))
        return by_head.view(self.heads, -1, self.taps, self.outs)

    def unpack(self, packed_GCTJ: Tensor) -> Tensor:
        """The inverse of `pack`: (O, C or C / G, kh, kw)."""
        by_head = turned(packed_GCTJ.view(self.heads, -1, self.outs))
        return by_head.view(self.heads * self.outs, packed_GCTJ.shape[1], *self.kernel)


class _Geometry(NamedTuple):
    """Numbers of a shape and the arrays that its structure points at."""

    out: tuple[int, int]
    row: int
    lead: int
    length: int
    phase: NDArray[np.int64]
    shift: NDArray[np.int64]


@cache
def _geometry(shape: PassShape) -> _Geometry:
    w = shape.window
    out = w.output(shape.size)
    # such a convolution reads pixels as they lie: no planes are laid out, length 0 says so
    if shape.taps == 1 and shape.stride == 1 and not any(shape.padding):
        nothing = np.zeros(1, np.int64)
        return _Geometry(out, 0, 0, 0, nothing, nothing)
    row = w.row(shape.size, 1)
    layout = w.input_layout(shape.size, 1, row)
    (taps,) = w.places(1)
    phase = np.array([py * shape.stride + px for py, px, _, _ in taps], np.int64)
    shift = np.array([y * row + x for _, _, y, x in taps], np.int64)
    # padding may give more rows of output than there are of input: planes hold either
    length = max(layout.length, -(-out[0] * row // 16) * 16)
    reach = int(np.abs(shift).max()) + length - layout.length
    return _Geometry(out, row, -(-max(layout.lead, reach) // 16) * 16, length, phase, shift)


def _address(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def _image(t: Train, x: Tensor) -> None:
    t.samples, t.channels, t.height, t.width = x.shape
    t.x, t.x_step = x.data_ptr(), x.stride(0)


def _convolution(
    shape: PassShape,
    x: Tensor,
    affine: Affine | None,
    selected: SelectedChannels | None,
    weight: Tensor,
) -> Train:
    g = _geometry(shape)
    t = Train()
    _image(t, x)
    t.out_height, t.out_width = g.out
    t.heads, t.outs, t.taps, t.own = shape.heads, shape.outs, shape.taps, shape.own
    # dynamic outputs are shuffled: neighbours in memory belong to different heads
    t.out_step, t.head_step = (1, shape.outs) if shape.static else (shape.heads, 1)
    t.planes = Planes(
        shape.stride, g.row, g.lead, g.length, g.phase.ctypes.data, g.shift.ctypes.data
    )
    if affine is not None:
        t.scale, t.shift, t.mean = (
            affine.scale.data_ptr(),
            affine.shift.data_ptr(),
            affine.mean.data_ptr(),
        )
    if selected is not None:
        t.kept = selected.channels.shape[-1]
        t.count, t.index, t.gate = (part.data_ptr() for part in selected)
    t.weight = weight.data_ptr()
    return t


def _run(op: Pass, t: Train) -> None:
    loaded = library.load()
    assert loaded is not None
    # never more threads than samples: each has a share of its own, and scratch for it
    t.op, t.threads = int(op), min(torch.get_num_threads(), t.samples)
    room = loaded.handle.dgc_train_room
    room.restype = c_int64
    # asked of the library, which alone knows how it cuts its scratch
    t.scratch_step = room(ctypes.byref(t))
    scratch = torch.empty(
        # passes over single planes need none
        t.threads * t.scratch_step if op >= Pass.FORWARD or op == Pass.CHOOSE else 0
    )
    t.scratch = scratch.data_ptr()
    loaded.handle.dgc_train(ctypes.byref(t), loaded.isa)


def moments(x_BCHW: Tensor) -> PlaneMoments:
    t = Train()
    _image(t, x_BCHW)
    found = PlaneMoments(*(x_BCHW.new_empty(x_BCHW.shape[:2]) for _ in range(2)))
    t.plane_mean, t.plane_square = found.mean.data_ptr(), found.square.data_ptr()
    _run(Pass.MOMENTS, t)
    return found


def pooled(x_BCHW: Tensor, affine: Affine | None) -> Tensor:
    """Mean of each activated plane: (B, C)."""
    t = Train()
    _image(t, x_BCHW)
    if affine is not None:
        t.scale, t.shift = affine.scale.data_ptr(), affine.shift.data_ptr()
    means = x_BCHW.new_empty(x_BCHW.shape[:2])
    t.plane_mean = means.data_ptr()
    _run(Pass.POOLED, t)
    return means


def select_channels(gates_BGC: Tensor, n_inactive: int) -> SelectedChannels:
    """The gates that are left when the n smallest, ties included, and those at zero are off."""
    t = Train()
    t.samples, t.heads, t.channels = gates_BGC.shape
    t.kept, t.inactive, t.height, t.width = t.channels - n_inactive, n_inactive, 1, 1
    shape = (*gates_BGC.shape[:2], t.kept)
    found = SelectedChannels(
        torch.empty(shape[:2], dtype=torch.int32),
        torch.zeros(shape, dtype=torch.int32),
        gates_BGC.new_zeros(shape),
    )
    t.gates = gates_BGC.data_ptr()
    t.count, t.index, t.gate = (part.data_ptr() for part in found)
    _run(Pass.CHOOSE, t)
    return found


def add_affine(grad_BCHW: Tensor, x_BCHW: Tensor, scale: Tensor, shift: Tensor) -> None:
    """grad += x * scale + shift, channel by channel, in place."""
    t = Train()
    _image(t, x_BCHW)
    t.scale, t.shift = scale.data_ptr(), shift.data_ptr()
    t.grad_x, t.grad_x_step = grad_BCHW.data_ptr(), grad_BCHW.stride(0)
    _run(Pass.ADD_AFFINE, t)


def forward(
    shape: PassShape,
    x: Tensor,
    affine: Affine | None,
    selected: SelectedChannels | None,
    weight: Tensor,
    out: Tensor,
    *,
    with_moments: bool = False,
) -> PlaneMoments | None:
    """Into `out` (B, O, H', W'); the moments of its planes where wanted."""
    t = _convolution(shape, x, affine, selected, weight)
    t.y, t.y_step = out.data_ptr(), out.stride(0)
    found = PlaneMoments(*(x.new_empty(out.shape[:2]) for _ in range(2))) if with_moments else None
    if found is not None:
        t.plane_mean, t.plane_square = found.mean.data_ptr(), found.square.data_ptr()
    _run(Pass.FORWARD, t)
    return found


def grad_weight(
    shape: PassShape,
    x: Tensor,
    affine: Affine | None,
    selected: SelectedChannels | None,
    weight: Tensor,
    grad_y: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the packed weights (G, C, T, J), and of the selected gates (B, G, K)."""
    t = _convolution(shape, x, affine, selected, weight)
    t.y, t.y_step = grad_y.data_ptr(), grad_y.stride(0)
    # one for each thread, added up here in their order: no thread waits, and no sum depends on luck
    grads = x.new_zeros(min(torch.get_num_threads(), len(x)), *weight.shape)
    heard = None if selected is None else torch.zeros_like(selected.gates)
    t.grad_weight, t.grad_gate = grads.data_ptr(), _address(heard)
    _run(Pass.GRAD_WEIGHT, t)
    return grads.sum(0), heard


def grad_input(
    shape: PassShape,
    x: Tensor,
    affine: Affine | None,
    selected: SelectedChannels | None,
    weight: Tensor,
    grad_y: Tensor,
    grad_pooled: Tensor | None,
    out: Tensor,
    *,
    add: bool = False,
) -> tuple[Tensor, Tensor]:
    """Into `out` (B, C, H, W), or added to it: the gradient g of x * scale + shift, times scale.

    `grad_pooled` (B, C) is what each pixel of the activated input gets besides. Returns the sums of
    g and of g * (x - mean), both (C,) float64.
    """
    t = _convolution(shape, x, affine, selected, weight)
    t.y, t.y_step = grad_y.data_ptr(), grad_y.stride(0)
    # in double and per thread, as above: BatchNorm takes differences of these sums
    sums = torch.zeros(min(torch.get_num_threads(), len(x)), 2, shape.channels, dtype=torch.float64)
    t.grad_pooled, t.sums = _address(grad_pooled), sums.data_ptr()
    t.grad_x, t.grad_x_step, t.add = out.data_ptr(), out.stride(0), int(add)
    t.factor = None if affine is None else affine.scale.data_ptr()
    _run(Pass.GRAD_INPUT, t)
    sum_g, sum_gx = sums.sum(0)
    return sum_g, sum_gx
