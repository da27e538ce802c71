"""Depthwise convolutions 3x3 and 5x5: where their kernel fits, and what it reads (see
dgc/kernels/cpu/src/infer/depthwise.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dgc.infer.conv_params import Conv
from dgc.kernels.cpu.layout import Layout, Window, up
from dgc.kernels.cpu.structs import Kind, Mode

if TYPE_CHECKING:
    from dgc.infer.graph import Node
    from dgc.infer.memory import Image
    from dgc.infer.node_images import NodeImages

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


def source(to: NodeImages, node: Node, w: Window, target: Layout) -> Image | None:
    """The image that it reads, copied where its rows lie too close; None where neither road can."""
    pad, before = w.padding[0], node.inputs[0]
    size = to.sizes[before]
    if w.stride == 1 and (target.phases > 1 or target.row <= NARROW):
        return to.readable(before, w, target)
    if target.phases > 1 or (target.width < 16 and target.lead < 16):
        return None
    row = max(size[1] + pad, target.row if w.stride == 1 else 0)
    wanted = Layout(*size, 1, row, 0)
    wanted = Layout(*size, 1, row, lead(wanted, pad))
    if before.kind == "affine" and before not in to.images:
        return to.packed(to.realised(before.inputs[0]), wanted, before)
    image = to.realised(before)
    return image if by_rows(image.layout, target, w) else to.packed(image, wanted)


def emit(to: NodeImages, node: Node, w: Window, images: dict[str, Image]) -> None:
    from dgc.infer.node_images import acts

    conv, layout, target = node.conv, images["src"].layout, images["dst"].layout
    assert conv is not None
    rows = by_rows(layout, target, w) and not (w.stride == 1 and target.row <= NARROW)
    after: dict[str, Any] = acts(node)
    if after.pop("relu", 0):
        after = {"act": int(node.act)}
    constants: dict[str, Any] = {"weight": conv.weight.reshape(conv.groups, -1), "bias": conv.bias}
    if not rows:
        constants["offsets"] = w.offsets(layout, target.phases)
    to.emit(
        Kind.DEPTHWISE, images, constants=constants, channels=conv.groups, taps=conv.taps,
        mode=int(Mode.BY_ROWS) if rows else 0, pool_stride=w.stride, pool_pad=w.padding[0],
        pool_kernel=w.kernel[0], **after,
    )  # fmt: skip
