"""Convolutions, static and dynamic, as operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from dgc.engine import weights
from dgc.engine.graph import Conv, Node
from dgc.engine.layout import Layout, Window, up
from dgc.engine.memory import Buffer, Image, new_region
from dgc.engine.shapes import window
from dgc.native.structs import Kind

if TYPE_CHECKING:
    from dgc.engine.lower import Lowering

HEAVY = 256 * 1024  # bytes of weights from which an operation runs over all samples at once
FEW_PIXELS = 256  # up to here the gates multiply a copy of the input, above it the weights
LANE_PIXELS = 196  # up to here vectors run over output channels: measured, see benchmarks


def lower(to: Lowering, node: Node) -> None:
    """Emit the operations of a convolution node: into its target, with its residual, bias and ReLU."""
    assert node.conv is not None
    w, target = window(node), to.target(node)
    images = {"dst": target}
    if len(node.inputs) > 1:
        images["residual"] = _like(to, node.inputs[1], target.layout)
    if node.conv.dynamic:
        _dynamic(to, node, node.conv, w, images)
    else:
        images["src"] = to.readable(node.inputs[0], w, target.layout)
        _emit(to, node, node.conv, w, images)


def _like(to: Lowering, node: Node, layout: Layout) -> Image:
    image = to.realised(node)
    same = (image.layout.phases, image.layout.row) == (layout.phases, layout.row)
    return image if same else to.packed(image, layout)


def fits(have: Layout, wanted: Layout) -> bool:
    """Whether taps computed for one layout can read the other."""
    return (have.phases, have.row) == (wanted.phases, wanted.row) and have.lead >= wanted.lead


def few_pixels(layout: Layout) -> bool:
    return layout.length * layout.phases**2 <= FEW_PIXELS


def over_outputs(conv: Conv, out: Layout) -> bool:
    """Whether vectors run over output channels: few pixels, and heads of whole vectors."""
    pixels, outs = out.height * out.width, int(conv.weight.shape[0]) // conv.groups
    return conv.dynamic and out.phases == 1 and pixels <= LANE_PIXELS and outs % 16 == 0


def _dynamic(to: Lowering, node: Node, conv: Conv, w: Window, images: dict[str, Image]) -> None:
    x, out = to.realised(node.inputs[0]), images["dst"].layout
    wanted = w.input_layout(to.sizes[node.inputs[0]], out.phases, out.row)
    taps = w.kernel[0] * w.kernel[1]
    regions = {}
    if taps > 1 and not few_pixels(out):
        regions["panel"] = new_region(int(conv.weight.numel()))
    packed = weights.blocks(conv.weight, conv.groups)
    regions["list"] = chosen(to, x, conv, packed, taps, regions.get("panel"))
    norm = Node("affine", scale=conv.scale, shift=conv.shift, relu=conv.scale is not None)
    if "panel" in regions or not fits(x.layout, wanted):
        if norm.relu or not fits(x.layout, wanted):
            x = to.packed(x, wanted, norm)
        norm = Node("affine")
    _emit(to, node, conv, w, images | {"src": x}, regions, norm)


def chosen(to: Lowering, x: Image, conv: Conv, packed: Tensor, taps: int, panel: Buffer | None) -> Buffer:
    """The list of selected channels of every head from the means of the activated input; with a `panel`, also the
    selected weights times their gates."""
    assert conv.fc1 is not None
    assert conv.fc2 is not None
    assert conv.fc2_bias is not None
    heads, hidden, channels = conv.fc1.shape
    p = to.means(x, conv.scale, conv.shift, conv.scale is not None)
    h = to.linear(p, channels, conv.fc1.reshape(heads * hidden, channels), None, relu=True)
    g = new_region(heads * up(channels))
    to.emit(
        Kind.GATES, regions={"input": h, "out": g},
        constants={"weight": weights.rows(conv.fc2.transpose(1, 2)), "bias": weights.rows(conv.fc2_bias)},
        channels=channels, heads=heads, hidden=hidden, batched=int(conv.fc2.numel() * 4 >= HEAVY),
    )  # fmt: skip
    return select(to, {"input": g}, conv, packed, taps, panel)


def select(
    to: Lowering, regions: dict[str, Buffer], conv: Conv, packed: Tensor, taps: int, panel: Buffer | None
) -> Buffer:
    """The selection among gates that are in a region, or come from outside."""
    heads, channels = conv.groups, int(conv.weight.shape[1])
    listed = new_region(heads * (16 + 2 * up(channels)))
    regions = regions | {"list": listed}
    if panel is not None:
        regions["panel"] = panel
    to.scratch = max(to.scratch, up(channels))
    to.emit(
        Kind.SELECT, regions=regions, constants={"weight": None if panel is None else packed},
        channels=channels, heads=heads, inactive=conv.n_inactive, scale_weights=int(panel is not None),
        outs=int(conv.weight.shape[0]) // heads, taps=taps,
    )  # fmt: skip
    return listed


def _emit(
    to: Lowering, node: Node, conv: Conv, w: Window, images: dict[str, Image],
    regions: dict[str, Buffer] | None = None, norm: Node | None = None,
) -> None:  # fmt: skip
    regions, norm = regions or {}, norm or Node("affine")
    out, source = images["dst"].layout, images["src"].layout
    outs, channels = int(conv.weight.shape[0]) // conv.groups, images["src"].channels
    heavy = few_pixels(out) and conv.weight.numel() * 4 >= HEAVY
    lanes = over_outputs(conv, out)
    pack = weights.lanes if lanes else weights.blocks
    constants = {"weight": pack(conv.weight, conv.groups), "bias": conv.bias}
    constants |= {"in_scale": norm.scale, "in_shift": norm.shift}
    room = channels * max(400, source.plane) + source.lead + 32 * out.height * out.width + out.length + 4096
    to.scratch = max(to.scratch, room)
    to.emit(
        Kind.CONV, images, regions, constants | {"offsets": w.offsets(source, out.phases)},
        channels=channels, heads=conv.groups, outs=outs, dynamic=int(conv.dynamic), taps=w.kernel[0] * w.kernel[1],
        relu=int(node.relu), in_relu=int(norm.relu), has_residual=int("residual" in images), has_dst=1,
        out_step=conv.groups if conv.dynamic else 1, head_step=1 if conv.dynamic else outs,
        inactive=conv.n_inactive, scale_weights=int("panel" in regions), batched=int(heavy),
        lanes=int(lanes),
    )  # fmt: skip
