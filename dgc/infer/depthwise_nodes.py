"""Depthwise convolutions as operations: what they read, and how."""

from __future__ import annotations

from typing import Any

from dgc.infer import depthwise
from dgc.infer.graph import Node
from dgc.infer.memory import Image
from dgc.infer.node_images import NodeImages, acts
from dgc.kernels.cpu.layout import Layout, Window
from dgc.kernels.cpu.structs import Kind, Mode


def source(to: NodeImages, node: Node, w: Window, target: Layout) -> Image | None:
    """The image that it reads, copied where its rows lie too close; None where neither road can."""
    pad, before = w.padding[0], node.inputs[0]
    size = to.sizes[before]
    if w.stride == 1 and (target.phases > 1 or target.row <= depthwise.NARROW):
        return to.readable(before, w, target)
    if target.phases > 1 or (target.width < 16 and target.lead < 16):
        return None
    row = max(size[1] + pad, target.row if w.stride == 1 else 0)
    wanted = Layout(*size, 1, row, 0)
    wanted = Layout(*size, 1, row, depthwise.lead(wanted, pad))
    if before.kind == "affine" and before not in to.images:
        return to.packed(to.realised(before.inputs[0]), wanted, before)
    image = to.realised(before)
    return image if depthwise.by_rows(image.layout, target, w) else to.packed(image, wanted)


def emit(to: NodeImages, node: Node, w: Window, images: dict[str, Image]) -> None:
    conv, layout, target = node.conv, images["src"].layout, images["dst"].layout
    assert conv is not None
    rows = depthwise.by_rows(layout, target, w) and not (
        w.stride == 1 and target.row <= depthwise.NARROW
    )
    after: dict[str, Any] = acts(node)
    if after.pop("relu", 0):
        after = {"act": int(node.act)}
    constants: dict[str, Any] = {"weight": conv.weight.reshape(conv.groups, -1), "bias": conv.bias}
    if not rows:
        constants["offsets"] = w.offsets(layout, target.phases)
    to.emit(
        Kind.DEPTHWISE, images, constants=constants, channels=conv.groups, taps=conv.taps,
        mode=int(Mode.BY_ROWS) if rows else 0, pool_stride=w.stride, pool_pad=w.padding[0],
        pool_kernel=w.kernel[0], around=w.padding != (0, 0), **after,
    )  # fmt: skip
