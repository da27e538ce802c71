"""Weights in the order in which the kernels read them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgc.kernels.cpu.layout import up


def rows(matrix: Tensor) -> Tensor:
    """(..., n) with the last dimension padded with zeros to a multiple of 16."""
    n = int(matrix.shape[-1])
    return F.pad(matrix, (0, up(n) - n)).contiguous()


def row_blocks(n: int) -> list[int]:
    """Output channels that lie together:
    sixteens (a line of the cache), then an 8, a 4, a 2, a 1.
    """
    return [16] * (n // 16) + [b for b in (8, 4, 2, 1) if n % 16 & b]


def blocks(weight_OCkk: Tensor, groups: int) -> Tensor:
    """(O, C, kh, kw) as [group][block
    of output channels][input channel][tap][output channel in the block], flat.
    """
    o, c = weight_OCkk.shape[:2]
    by_group = weight_OCkk.reshape(groups, o // groups, c, -1)
    pieces = []
    for part in by_group:
        pieces += [p.permute(1, 2, 0).reshape(-1) for p in part.split(row_blocks(o // groups))]
    return torch.cat(pieces)


def lanes(weight_OCkk: Tensor, groups: int) -> Tensor:
    """The same for vectors over output channels: blocks of 32, then a 16."""
    o, c = weight_OCkk.shape[:2]
    by_group = weight_OCkk.reshape(groups, o // groups, c, -1)
    return torch.cat([p.permute(1, 2, 0).reshape(-1) for part in by_group for p in part.split(32)])
