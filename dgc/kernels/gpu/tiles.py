"""Sizes of the kernels' tiles, by shape and dtype: a fixed table, for a size that is chosen by
timing would give other last bits from run to run.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tile(NamedTuple):
    """`rows` and `columns` of what one program computes,
    `depth` of one product, and how it runs.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


def power_of_two(n: int, least: int = 1, most: int = 1 << 30) -> int:
    """The next power of two, within bounds that are such themselves."""
    return min(most, max(least, 1 << max(0, n - 1).bit_length()))


def forward(dtype: torch.dtype, pixels: int, outs: int) -> Tile:
    """Rows are pixels, columns the outputs of a head, depth its channels."""
    # tl.dot takes no side shorter than 16, in any dtype.
    wide = dtype == torch.float32
    columns = power_of_two(outs, 16, 64 if wide else 128)
    rows = power_of_two(pixels, 16, 64 if columns >= 64 else 128)
    # three TF32 products for one take their registers: at full depth sm_80 would spill
    depth = 16 if wide and columns == 64 else 32
    return Tile(rows, columns, depth, 8 if rows * columns >= 128 * 64 else 4, 2 if wide else 3)


def grad_input(dtype: torch.dtype, channels: int, pixels: int, outs: int) -> Tile:
    """Rows are input channels, columns pixels, depth the outputs of all heads."""
    wide = dtype == torch.float32
    rows, columns = power_of_two(channels, 16, 64), power_of_two(pixels, 16, 64)
    return Tile(rows, columns, power_of_two(outs, 16, 32), 4, 2 if wide else 3)


def grad_weight(dtype: torch.dtype, channels: int, outs: int, pixels: int, taps: int) -> Tile:
    """Rows are input channels, columns the outputs of a head, depth pixels."""
    # Three tiles of rows and columns are in registers at once: weights, a sample's own product and
    # the sum. A window's addresses take their share too, one for each row and pixel.
    wide = dtype == torch.float32
    columns = power_of_two(outs, 16, 32 if wide and taps > 1 else 64)
    rows = power_of_two(channels, 16, 64)
    depth = 32 if wide or taps > 1 or columns == 64 else 64
    if wide and (columns == 64 or (taps > 1 and rows * columns == 64 * 32)):
        depth = 16
    return Tile(rows, columns, power_of_two(pixels, 16, depth), 8 if columns == 64 else 4, 2)


def planes(channels: int, pixels: int) -> tuple[int, int]:
    """Channels and pixels that one program of a pass over planes takes at once."""
    columns = power_of_two(pixels, 16, 1024)
    return max(1, min(power_of_two(channels), 2048 // columns)), columns


# what the kernels for narrow groups are for: beyond it tensor cores are worth their rounding up
NARROW_INPUTS, NARROW_OUTPUTS = 32, 8
