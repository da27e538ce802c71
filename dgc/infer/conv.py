"""Convolutions as operations: the selection among gates, and the products."""

from __future__ import annotations

from typing import Any

from dgc.infer import winograd
from dgc.infer.conv_params import Conv
from dgc.infer.emit import Constant, Emitter
from dgc.infer.memory import Buffer, Image, new_region
from dgc.kernels.cpu import library, weights
from dgc.kernels.cpu.layout import Layout, Window, up
from dgc.kernels.cpu.structs import Kind

HEAVY = 256 * 1024  # bytes of weights from which an operation runs over all samples at once
FEW_PIXELS = 256  # up to here the gates multiply a copy of the input, above it the weights
# up to here vectors run over output channels where a head has whole vectors of them ...
LANE_PIXELS = 196
# ... for a 1x1 only where less of the vectors of pixels is pixels: 7x7 in 2x2 sub-planes fill 0.38
# of them, and row after row 0.77, which is as fast as vectors over outputs (measured with AVX-512)
FILLED = 0.6
# of a 1x1: pixels for each output of a head from which it is cheaper to multiply the gates into the
# weights, outputs x channels, than into the input, pixels x channels
PIXELS_AN_OUTPUT = 4
# of a head, up to which that is faster: with AVX-512 (32 registers), with AVX2 (16)
MOST_OUTPUTS, FEWER_OUTPUTS = 64, 24


def layout_matches(have: Layout, wanted: Layout) -> bool:
    """Whether taps computed for one layout can read the other."""
    return have.alike(wanted) and have.lead >= wanted.lead


def few_pixels(layout: Layout) -> bool:
    return layout.length * layout.phases**2 <= FEW_PIXELS


def filled(out: Layout) -> float:
    """Which share of the numbers in vectors of pixels are pixels."""
    numbers = up((out.rows - 1) * out.row + out.columns) * out.phases**2
    return out.height * out.width / numbers


def over_outputs(conv: Conv, out: Layout) -> bool:
    """Whether vectors run over output channels: few pixels, and heads of whole vectors."""
    pixels, outs = out.height * out.width, int(conv.weight.shape[0]) // conv.groups
    # without many registers, small tiles over packed pixels waste less
    if conv.taps == 1 and (not library.many_registers() or filled(out) >= FILLED):
        return False
    return conv.dynamic and out.phases <= 2 and pixels <= LANE_PIXELS and outs % 16 == 0


def needs_panel(conv: Conv, w: Window, out: Layout) -> bool:
    """Whether the gates multiply the weights: kernels over many pixels."""
    if not conv.dynamic:
        return False
    if conv.taps > 1:
        return not few_pixels(out) and not by_tiles(conv, w, out)
    # A BatchNorm in front is applied to a copy of the input anyway, and the gates with it. Such a
    # copy pays where many outputs read it.
    pixels, outs = out.height * out.width, int(conv.weight.shape[0]) // conv.groups
    kept = int(conv.weight.shape[1]) - conv.n_inactive
    most = MOST_OUTPUTS if library.many_registers() else FEWER_OUTPUTS
    return conv.scale is None and outs <= min(most, kept, pixels // PIXELS_AN_OUTPUT)


def by_tiles(conv: Conv, w: Window, out: Layout) -> bool:
    """Whether it is computed by Winograd's tiles."""
    return out.phases == 2 and winograd.is_supported(conv, w, (out.height, out.width))


def input_layout(conv: Conv, w: Window, size: tuple[int, int], out: Layout) -> Layout:
    """What an input of `size` has to lie in for an output in `out`."""
    return (
        winograd.layout(size, out.row)
        if by_tiles(conv, w, out)
        else w.input_layout(size, out.phases, out.row)
    )


def select(
    to: Emitter,
    regions: dict[str, Buffer],
    conv: Conv,
    panel: Buffer | None,
    external: Constant = None,
) -> Buffer:
    """The list of selected channels among gates that are in the region `input`, or are given as
    `external`; with a `panel`, also the selected weights times their gates.
    """
    heads, channels = conv.groups, int(conv.weight.shape[1])
    # of one form each: a list may lie where another of other channels never does (plan/program.cpp)
    listed = new_region(heads * (16 + 2 * up(channels)), f"list of {channels}")
    regions = regions | {"list": listed}
    if panel is not None:
        regions["panel"] = panel
    # In the order in which the kernel reads the panel that is made of them.
    packed = None if panel is None else weights.blocks(conv.weight, heads)
    to.scratch = max(to.scratch, up(channels))
    to.emit(
        Kind.SELECT, regions=regions, constants={"weight": packed, "external": external},
        channels=channels, heads=heads, inactive=conv.n_inactive,
        scale_weights=int(panel is not None),
        outs=int(conv.weight.shape[0]) // heads, taps=conv.taps,
    )  # fmt: skip
    return listed


def convolve(
    to: Emitter,
    conv: Conv,
    w: Window,
    images: dict[str, Image],
    regions: dict[str, Buffer] | None = None,
    *,
    inside: bool = False,
    **after: Any,
) -> None:
    """The products, from image `src` to `dst`, with `residual` added where there is one.

    `inside`: BatchNorm and ReLU of the dynamic convolution are applied while it reads.
    """
    regions = regions or {}
    out, source = images["dst"].layout, images["src"].layout
    outs, channels = int(conv.weight.shape[0]) // conv.groups, images["src"].channels
    wino, panel = by_tiles(conv, w, out), "panel" in regions
    lanes = over_outputs(conv, out) and not panel and not wino
    pack = winograd.points if wino else weights.lanes if lanes else weights.blocks
    window, phases = (winograd.TILES, 1) if wino else (w, out.phases)
    constants: dict[str, Constant] = {
        "weight": pack(conv.weight, conv.groups),
        "bias": conv.bias,
        "offsets": window.offsets(source, phases),
    }
    if wino:
        constants["edges"] = winograd.edges(out)
    if inside:
        constants |= {"in_scale": conv.scale, "in_shift": conv.shift}
    span = winograd.span(channels - conv.n_inactive, outs)
    room = (
        channels * max(400, source.plane, out.phases**2 * out.length)
        + source.lead
        + 32 * out.height * out.width
        + out.length
        + 4096
    )
    to.scratch = max(
        to.scratch,
        16 * ((channels + outs) * min(span + winograd.SLACK, out.length) + 32) if wino else room,
    )
    to.emit(
        Kind.WINO if wino else Kind.CONV, images, regions, constants, span=span,
        channels=channels, heads=conv.groups, outs=outs, dynamic=int(conv.dynamic), taps=conv.taps,
        **after, in_relu=int(inside and conv.scale is not None),
        has_residual=int("residual" in images),
        out_step=conv.groups if conv.dynamic else 1, head_step=1 if conv.dynamic else outs,
        inactive=conv.n_inactive, scale_weights=int(panel), lanes=int(lanes),
        # a panel is of one sample: it is made and read before the next one's
        batched=int(few_pixels(out) and conv.weight.numel() * 4 >= HEAVY and not panel),
        around=w.padding != (0, 0),
    )  # fmt: skip
