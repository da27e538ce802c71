"""What the algorithms of the convolution share: the numbers of a convolution, and which channels
each head reads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """A convolution's numbers; every head sees the same."""

    stride: int
    padding: int
    dilation: int
    heads: int


class Selected(NamedTuple):
    """The channels each head reads: `gate` (B, G, K)
    and their `index` (B, G, K); index None: all C, in order.
    """

    gate: Tensor
    index: Tensor | None  # type: ignore[assignment]


class Grads(NamedTuple):
    """Gradients of an algorithm: `x` (B, C, H, W),
    `gate` (B, G, K) as selected, `weight` (O, C, k, k).
    """

    x: Tensor
    gate: Tensor
    weight: Tensor


def select(selected_BGC: Tensor, channels: int) -> Selected:
    """The `channels` largest gates of each sample and head; all of them where that is C."""
    if channels >= selected_BGC.shape[-1]:
        return Selected(selected_BGC, None)
    # unsorted: no algorithm cares for the order, and sorting costs
    gate_BGK, index_BGK = torch.topk(selected_BGC, channels, dim=-1, sorted=False)
    return Selected(gate_BGK, index_BGK)


def unselect(grad_BGK: Tensor, index_BGK: Tensor | None, channels: int) -> Tensor:
    """The gradient of the selected gates, put back in its places among all C: (B, G, C)."""
    if index_BGK is None:
        return grad_BGK
    return grad_BGK.new_zeros(*grad_BGK.shape[:2], channels).scatter_(-1, index_BGK, grad_BGK)


def input_rows(index_BGK: Tensor, channels: int) -> Tensor:
    """Flat positions of the selected channels in (B*C) rows of the input."""
    first_B11 = torch.arange(index_BGK.shape[0], device=index_BGK.device).view(-1, 1, 1) * channels
    return (index_BGK + first_B11).flatten()


def weight_rows(index_BGK: Tensor, channels: int) -> Tensor:
    """Flat positions of the selected channels in (G*C) rows of the weights."""
    first_G1 = torch.arange(index_BGK.shape[1], device=index_BGK.device).view(-1, 1) * channels
    return (index_BGK + first_G1).flatten()
