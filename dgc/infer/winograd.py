"""Winograd's F(2x2, 3x3) for dynamic convolutions: where it pays, its layout, its weights (see
dgc/kernels/cpu/src/infer/wino.h).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgc.infer.conv_params import Conv
from dgc.kernels.cpu import weights
from dgc.kernels.cpu.layout import Layout, Window, up

TILES = Window((4, 4), 2, (1, 1), (1, 1))  # the 4x4 inputs of each 2x2 outputs
LEAST_PIXELS = 36  # below, too many lanes are padding
LEAST_OUTPUTS = 8  # of a head: the products have to outweigh the transforms
# tiles by which a piece may exceed its span: pieces end where register tiles (3 vectors of at most
# 16) do
SLACK = 96
NEAR = 64 * 1024  # floats of transformed input and output that stay in the second-level cache

_G = torch.tensor(
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64
)


def is_supported(conv: Conv, w: Window, size: tuple[int, int]) -> bool:
    """Whether a convolution that gives an image of `size` is computed this way."""
    shape = (w.kernel, w.stride, w.padding, w.dilation) == ((3, 3), 1, (1, 1), (1, 1))
    outs = int(conv.weight.shape[0]) // conv.groups
    return (
        conv.dynamic
        and shape
        and size[0] * size[1] >= LEAST_PIXELS
        and min(size) >= 4
        and outs >= LEAST_OUTPUTS
    )


def layout(size: tuple[int, int], row: int = 0) -> Layout:
    """2 x 2 sub-planes, with room for the tiles' inputs above and below;
    rows at least `row` apart.
    """
    even = (up(size[0], 2), up(size[1], 2))
    row = max(row, even[1] // 2)
    return Layout(*size, 2, row, TILES.lead(even, 1, row))


def edges(out: Layout) -> NDArray[np.int32]:
    """(2, length): -1 on tiles that have another one to their left, to their right."""
    # A tile at the edge has no neighbour there, though another row's lies beside it in memory.
    column = np.arange(out.length) % out.row
    return np.stack([column > 0, column < out.columns - 1]).astype(np.int32) * np.int32(-1)


def span(channels: int, outs: int) -> int:
    """Tiles that one head takes at once."""
    return max(64, NEAR // (16 * (channels + outs)) // 48 * 48)


def points(weight_OCkk: Tensor, heads: int) -> Tensor:
    """G w G^T as [head][point][block of output channels][input channel][output channel in the
    block], flat.
    """
    o, c = weight_OCkk.shape[:2]
    # In double, rounded once at the end.
    u = (_G @ weight_OCkk.double() @ _G.T).float().reshape(heads, o // heads, c, 16)
    blocks = weights.row_blocks(o // heads)
    pieces = [
        b.transpose(0, 1).reshape(-1)
        for head in u
        for p in range(16)
        for b in head[..., p].split(blocks)
    ]
    return torch.cat(pieces)
