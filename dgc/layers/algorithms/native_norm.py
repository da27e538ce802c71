"""BatchNorm as the C++ kernels work with it: folded into scale and shift of each channel, and its
backward taken apart.

The kernels write g * scale, and sum g and g * (x - mean) over a channel. What mean and variance of
the batch add to the gradient is x * a + b, with a and b (C,) made of those two sums.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dgc.kernels.cpu import train_passes
from dgc.kernels.cpu.train_passes import Affine
from dgc.layers.norm import Normaliser


def affine_of(link: Normaliser) -> Affine:
    """BatchNorm as scale and shift."""
    scale = link.weight * torch.rsqrt(link.var + link.rule.eps)
    return Affine(scale, link.bias - link.mean * scale, link.mean)


class NormGrads(NamedTuple):
    """Of a BatchNorm: its weight and bias; and a, b (C,): x * a + b is what else its input gets."""

    weight: Tensor
    bias: Tensor
    a: Tensor
    b: Tensor


def norm_grads(link: Normaliser, sums: tuple[Tensor, Tensor], count: int) -> NormGrads:
    """From the sums of g and g * (x - mean) over `count` values a channel."""
    sum_g, sum_gx = sums
    # in double precision: a and b are differences of large sums
    invstd = torch.rsqrt(link.var.double() + link.rule.eps)
    scale = link.weight * invstd
    a = -scale * invstd.square() * sum_gx / count
    b = -scale * sum_g / count - a * link.mean
    # with running statistics mean and variance are constants, and add nothing
    through = (a, b) if link.rule.batch else (torch.zeros_like(a), torch.zeros_like(b))
    return NormGrads((sum_gx * invstd).float(), sum_g.float(), *through)


def input_grad(
    link: Normaliser | None, x: Tensor, out: Tensor, sums: tuple[Tensor, Tensor]
) -> tuple[Tensor | None, Tensor | None]:
    """Completes the gradient of x in `out`,
    and returns those of the BatchNorm's weight and bias.
    """
    if link is None:
        return None, None
    grads = norm_grads(link, sums, x.numel() // x.shape[1])
    if link.rule.batch:
        train_passes.add_affine(out, x, grads.a.float(), grads.b.float())
    return grads.weight, grads.bias
