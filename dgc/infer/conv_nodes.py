"""Convolution nodes: in which layout they read, what is selected,
where BatchNorm and ReLU happen.
"""

from __future__ import annotations

from dgc.infer import depthwise, depthwise_nodes
from dgc.infer.conv import (
    HEAVY,
    by_tiles,
    convolve,
    input_layout,
    layout_matches,
    needs_panel,
    select,
)
from dgc.infer.conv_params import Conv
from dgc.infer.graph import Node
from dgc.infer.memory import Buffer, Image, new_region
from dgc.infer.node_images import NodeImages, acts
from dgc.infer.shapes import window
from dgc.kernels.cpu import weights
from dgc.kernels.cpu.layout import Window, up
from dgc.kernels.cpu.structs import Act, Kind


def lower_conv(to: NodeImages, node: Node) -> None:
    """Emit the operations of a convolution node: into its target, with its residual,
    bias and ReLU.
    """
    assert node.conv is not None
    w, target = window(node), to.target(node)
    images = {"dst": target}
    if len(node.inputs) > 1:
        images["residual"] = to.arranged(node.inputs[1], target.layout)
    if depthwise.is_supported(node.conv, w, len(node.inputs)):
        # None: neither of its two forms fits, and the general kernel computes it.
        source = depthwise_nodes.source(to, node, w, target.layout)
        if source is not None:
            depthwise_nodes.emit(to, node, w, images | {"src": source})
            return
    if node.conv.dynamic:
        _dynamic(to, node, node.conv, w, images)
    else:
        images["src"] = to.readable(node.inputs[0], w, target.layout)
        convolve(to, node.conv, w, images, **acts(node))


def _dynamic(to: NodeImages, node: Node, conv: Conv, w: Window, images: dict[str, Image]) -> None:
    x, out = to.realised(node.inputs[0]), images["dst"].layout
    wanted = input_layout(conv, w, to.sizes[node.inputs[0]], out)
    regions: dict[str, Buffer] = {}
    if needs_panel(conv, w, out):
        regions["panel"] = new_region(int(conv.weight.numel()), "panel")
    regions["list"] = _selected(to, x, conv, regions.get("panel"))
    # Where the gates multiply a copy of the input, BatchNorm and ReLU
    # on the way into that copy cost nothing. Tiles and panels read
    # the image as it lies, which then is copied through both first.
    inside = (
        "panel" not in regions and not by_tiles(conv, w, out) and layout_matches(x.layout, wanted)
    )
    if not inside and (conv.scale is not None or not layout_matches(x.layout, wanted)):
        act = Act.NO_ACT if conv.scale is None else Act.RELU
        norm = Node("affine", scale=conv.scale, shift=conv.shift, act=act)
        x = to.packed(x, wanted, norm)
    convolve(to, conv, w, images | {"src": x}, regions, inside=inside, **acts(node))


def _selected(to: NodeImages, x: Image, conv: Conv, panel: Buffer | None) -> Buffer:
    """The list of selected channels of every head, from the means of the activated input."""
    assert conv.fc1 is not None
    assert conv.fc2 is not None
    assert conv.fc2_bias is not None
    heads, hidden, channels = conv.fc1.shape
    p = to.means(x, conv.scale, conv.shift, conv.scale is not None)
    h = to.linear(p, channels, conv.fc1.reshape(heads * hidden, channels), None, relu=True)
    g = new_region(heads * up(channels), "gates")
    to.emit(
        Kind.GATES, regions={"input": h, "out": g},
        constants={
            "weight": weights.rows(conv.fc2.transpose(1, 2)), "bias": weights.rows(conv.fc2_bias),
        },
        channels=channels, heads=heads, hidden=hidden, batched=int(conv.fc2.numel() * 4 >= HEAVY),
    )  # fmt: skip
    return select(to, {"input": g}, conv, panel)
