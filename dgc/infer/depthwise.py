"""Depthwise convolutions 3x3 and 5x5: where their kernel fits, and what it reads (see
dgc/kernels/cpu/src/infer/depthwise.h)."""

from __future__ import annotations

from dgc.infer.conv_params import Conv
from dgc.kernels.cpu.layout import Layout, Window, up

NARROW = 8  # rows up to here: two of them lie in one vector, so vectors run over their ends


def fits(conv: Conv) -> bool:
    """Whether a convolution is one of those."""
    rows, columns = int(conv.weight.shape[2]), int(conv.weight.shape[3])
    return (
        not conv.dynamic
        and conv.weight.shape[1] == 1
        and int(conv.weight.shape[0]) == conv.groups
        and conv.groups > 1
        and rows == columns
        and rows in (3, 5)
        and conv.padding == (rows // 2, rows // 2)
        and conv.dilation == (1, 1)
        and conv.stride in (1, 2)
    )


def is_supported(conv: Conv, w: Window, inputs: int) -> bool:
    return inputs == 1 and fits(conv)


def lead(layout: Layout, padding: int) -> int:
    """Zeros above the first row, and behind the last one."""
    return up(padding * (layout.row + 1) + 16)


def by_rows(source: Layout, target: Layout, w: Window) -> bool:
    """Whether rows can be computed from these layouts."""
    pad = w.padding[0]
    plain = source.phases == 1 and target.phases == 1
    room = source.row >= source.width + pad and source.lead >= lead(source, pad)
    return plain and room and (target.width >= 16 or target.lead >= 16)
