"""Shapes of all nodes, and the layout that images of one size have in common."""

from __future__ import annotations

from dgc.engine.graph import Node, UnknownError
from dgc.native.layout import Layout, Window

Size = tuple[int, int]


def window(node: Node) -> Window:
    """The window of a convolution or pooling node."""
    if node.conv is not None:
        kernel = (int(node.conv.weight.shape[2]), int(node.conv.weight.shape[3]))
        return Window(kernel, node.conv.stride, node.conv.padding, node.conv.dilation)
    _, k, s, p = node.pool
    return Window((k, k), s, (p, p), (1, 1))


def shapes(nodes: list[Node], in_shape: tuple[int, int, int]) -> tuple[dict[Node, int], dict[Node, Size]]:
    """Channels and (height, width) of every node that is an image. Raises UnknownError where nothing is left."""
    channels: dict[Node, int] = {}
    sizes: dict[Node, Size] = {}
    for n in nodes:
        if n.kind in ("mean", "flatten", "linear"):
            continue
        if n.kind == "input":
            channels[n], sizes[n] = in_shape[0], (in_shape[1], in_shape[2])
            continue
        _check(n, channels, sizes)
        channels[n] = _channels(n, channels)
        size = sizes[n.inputs[0]]
        sizes[n] = window(n).output(size) if n.kind in ("conv", "pool") else size
        if min(sizes[n]) < 1:
            raise UnknownError(f"{n.kind} of an image of {size} leaves no pixel")
    return channels, sizes


def _check(n: Node, channels: dict[Node, int], sizes: dict[Node, Size]) -> None:
    for i in n.inputs:
        if i not in sizes:
            raise UnknownError(f"{n.kind} of something that is no image")
    if n.kind in ("add", "cat") and len({sizes[i] for i in n.inputs}) > 1:
        raise UnknownError(f"{n.kind} of images of different size")
    if n.kind == "add" and len({channels[i] for i in n.inputs}) > 1:
        raise UnknownError("a sum of images of different numbers of channels")
    if n.conv is not None:
        wanted = n.conv.weight.shape[1] * (1 if n.conv.dynamic else n.conv.groups)
        if channels[n.inputs[0]] != wanted:
            raise UnknownError(f"{channels[n.inputs[0]]} channels where {wanted} are wanted")


def _channels(n: Node, channels: dict[Node, int]) -> int:
    if n.conv is not None:
        return int(n.conv.weight.shape[0])
    if n.kind == "cat":
        return sum(channels[i] for i in n.inputs)
    return channels[n.inputs[0]]


def canonical_layouts(nodes: list[Node], sizes: dict[Node, Size]) -> dict[Size, Layout]:
    """One layout for each image size: rows far enough apart for every convolution that writes it, and as many zeros in
    front as those that read it directly need."""
    rows: dict[Size, int] = {}
    for n in nodes:
        if n in sizes:
            rows.setdefault(sizes[n], sizes[n][1])
        if n.conv is not None:
            least = window(n).row(sizes[n.inputs[0]], 1)
            rows[sizes[n]] = max(rows[sizes[n]], least)
    leads: dict[Size, int] = {}
    for n in nodes:
        if n.conv is not None:
            size = sizes[n.inputs[0]]
            leads[size] = max(leads.get(size, 0), window(n).lead(size, 1, rows[sizes[n]]))
    return {size: Layout(*size, 1, row, leads.get(size, 0)) for size, row in rows.items()}


__all__ = ["Size", "Window", "canonical_layouts", "shapes", "window"]
