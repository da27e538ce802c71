"""Passes of what stands around the convolutions in training, as the kernels in `src/train` make
them: BatchNorm with ReLU and a sum, a max-pool that remembers its maxima.

Legend: B samples, C channels. BatchNorm is folded into an Affine of each channel; "sums" are those
of g, g * (x - mean) and g * (other - its mean) over a channel, float64, of which BatchNorm's
gradient is made (dgc.layers.algorithms.native_norm).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dgc.kernels.cpu.norm_call import run, threads
from dgc.kernels.cpu.structs import Norm, NormPass
from dgc.kernels.cpu.train_passes import Affine, PlaneMoments

MOST_PLACES = 15  # kernel of a pool: its places are bytes


class MaxPoolShape(NamedTuple):
    """A max-pool with square windows, and the size of what it gives."""

    kernel: int
    stride: int
    padding: int
    out: tuple[int, int]


class MaximaPlaces(NamedTuple):
    """What a pool keeps for its way back: which pixel of each window was the largest (bytes)."""

    pool: MaxPoolShape
    of: Tensor


def relu(
    x: Tensor, affine: Affine, other: Tensor | None = None, its: Affine | None = None
) -> tuple[Tensor, PlaneMoments]:
    """relu(x * scale + shift), `other` (through a BatchNorm of its own) added before the ReLU;
    and the moments of its planes.
    """
    t, y = _pass(x), torch.empty_like(x)
    _affine(t, affine)
    _other(t, other, its)
    found = _moments(t, x)
    t.y, t.y_step = y.data_ptr(), y.stride(0)
    run(NormPass.NORM_RELU, t)
    return y, found


def through_relu(
    grad: Tensor,
    x: Tensor,
    affine: Affine,
    *,
    y: Tensor | None = None,
    other: Tensor | None = None,
    its: Affine | None = None,
    added: tuple[Tensor, Tensor] | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What comes through a ReLU, and its sums (3, C).

    The ReLU's output is y or, if None, u = relu(x * scale + shift). `added` (a, b): u * a + b is
    part of the gradient. `grad` may be that of each pixel of a plane (B, C). Into `out`, which may
    be `grad`.
    """
    t, to = _pass(x), torch.empty_like(x) if out is None else out
    _affine(t, affine)
    _other(t, other, its)
    if y is not None:
        t.y, t.y_step = y.data_ptr(), y.stride(0)
    if added is not None:
        t.a, t.b = added[0].data_ptr(), added[1].data_ptr()
    sums = _sums(t)
    if grad.dim() == 2:
        t.plane_mean, t.to, t.to_step = grad.data_ptr(), to.data_ptr(), to.stride(0)
    else:
        _gradient(t, grad, to)
    run(NormPass.NORM_MASK, t)
    return to, sums.sum(0)


def back(
    grad: Tensor, x: Tensor, scale: Tensor, a: Tensor, b: Tensor, out: Tensor | None = None
) -> Tensor:
    """grad * scale + x * a + b, channel by channel; into `out`, which may be `grad`."""
    t, to = _pass(x), torch.empty_like(x) if out is None else out
    t.scale, t.a, t.b = scale.data_ptr(), a.data_ptr(), b.data_ptr()
    _gradient(t, grad, to)
    run(NormPass.NORM_BACK, t)
    return to


def pool(x: Tensor, affine: Affine, p: MaxPoolShape) -> tuple[Tensor, MaximaPlaces]:
    """The max-pool of relu(x * scale + shift)."""
    t, y = _pass(x), x.new_empty(*x.shape[:2], *p.out)
    place = torch.empty(y.shape, dtype=torch.uint8)
    _affine(t, affine)
    t.y, t.y_step = y.data_ptr(), y.stride(0)
    found = MaximaPlaces(p, place)
    _pool(t, found)
    run(NormPass.NORM_POOL, t)
    return y, found


def pool_sums(grad: Tensor, x: Tensor, affine: Affine, place: MaximaPlaces) -> Tensor:
    """The sums (3, C) of what comes through pool and ReLU."""
    t = _pass(x)
    _affine(t, affine)
    sums = _sums(t)
    _gradient(t, grad, None)
    _pool(t, place)
    run(NormPass.NORM_POOL_SUMS, t)
    return sums.sum(0)


def pool_back(
    grad: Tensor, x: Tensor, scale: Tensor, a: Tensor, b: Tensor, place: MaximaPlaces
) -> Tensor:
    """The gradient of x: what comes through, times scale, and x * a + b."""
    t, to = _pass(x), torch.empty_like(x)
    t.scale, t.a, t.b = scale.data_ptr(), a.data_ptr(), b.data_ptr()
    _gradient(t, grad, to)
    _pool(t, place)
    run(NormPass.NORM_POOL_BACK, t)
    return to


def window_means(x: Tensor, k: int) -> Tensor:
    """Means of k x k pixels, side by side; pixels that fill no window are left out."""
    t, y = _pass(x), x.new_empty(*x.shape[:2], x.shape[2] // k, x.shape[3] // k)
    t.kernel, t.out_height, t.out_width = k, *y.shape[2:]
    t.y, t.y_step = y.data_ptr(), y.stride(0)
    run(NormPass.NORM_MEAN, t)
    return y


def window_means_back(grad: Tensor, shape: torch.Size, k: int) -> Tensor:
    """The gradient of the pixels."""
    to = grad.new_empty(shape)
    t = _pass(to)
    t.kernel, t.out_height, t.out_width = k, *grad.shape[2:]
    _gradient(t, grad, to)
    run(NormPass.NORM_MEAN_BACK, t)
    return to


def _pass(x: Tensor) -> Norm:
    t = Norm()
    t.samples, t.channels, t.height, t.width = x.shape
    t.x, t.x_step = x.data_ptr(), x.stride(0)
    return t


def _affine(t: Norm, affine: Affine) -> None:
    t.scale, t.shift, t.mean = (part.data_ptr() for part in affine)


def _other(t: Norm, other: Tensor | None, its: Affine | None) -> None:
    if other is not None:
        t.other, t.other_step = other.data_ptr(), other.stride(0)
    if its is not None:
        t.other_scale, t.other_shift, t.other_mean = (part.data_ptr() for part in its)


def _moments(t: Norm, x: Tensor) -> PlaneMoments:
    found = PlaneMoments(*(x.new_empty(x.shape[:2]) for _ in range(2)))
    t.plane_mean, t.plane_square = (part.data_ptr() for part in found)
    return found


def _gradient(t: Norm, grad: Tensor, to: Tensor | None) -> None:
    t.grad, t.grad_step = grad.data_ptr(), grad.stride(0)
    if to is not None:
        t.to, t.to_step = to.data_ptr(), to.stride(0)


def _pool(t: Norm, place: MaximaPlaces) -> None:
    t.kernel, t.stride, t.padding, (t.out_height, t.out_width) = place.pool
    t.place = place.of.data_ptr()


def _sums(t: Norm) -> Tensor:
    # one for each thread, added up in their order
    sums = torch.zeros(threads(t), 3, t.channels, dtype=torch.float64)
    t.sums = sums.data_ptr()
    return sums
