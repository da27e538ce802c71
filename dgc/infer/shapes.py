"""Shapes of all nodes, and the layouts of their images."""

from __future__ import annotations

from dataclasses import replace

from dgc.infer import winograd
from dgc.infer.graph import Node, UnknownError
from dgc.kernels.cpu.layout import Layout, Window

Size = tuple[int, int]


def window(node: Node) -> Window:
    """The window of a convolution or pooling node."""
    if node.conv is not None:
        kernel = (int(node.conv.weight.shape[2]), int(node.conv.weight.shape[3]))
        return Window(kernel, node.conv.stride, node.conv.padding, node.conv.dilation)
    _, k, s, p = node.pool
    return Window((k, k), s, (p, p), (1, 1))


def shapes(
    nodes: list[Node], in_shape: tuple[int, int, int]
) -> tuple[dict[Node, int], dict[Node, Size]]:
    """Channels and (height, width) of every node that is an image. Raises UnknownError where
    nothing is left.
    """
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


class Layouts:
    """In which layout each image lies. Images of one size share theirs, so that sums and
    concatenations need no copy: in 2 x 2 sub-planes where convolutions by tiles write it, and row
    after row elsewhere. What a strided convolution writes stays row after row even there: in
    sub-planes it would need four times as many of its input.
    """

    def __init__(self, nodes: list[Node], sizes: dict[Node, Size], *, tiles: bool = True) -> None:
        self.sizes, self.tiles = sizes, tiles
        convs = [n for n in nodes if n.conv is not None]
        self._writers = {
            size: [n for n in convs if sizes[n] == size] for size in set(sizes.values())
        }
        self._plain = {size: Layout(*size, 1, self._row(size, 1), 0) for size in self._writers}
        self._shared = {size: self._tiled(size) or plain for size, plain in self._plain.items()}
        for n in convs:
            self._make_room(n)

    def of(self, node: Node) -> Layout:
        size = self.sizes[node]
        return (self._plain if self._strided(node) else self._shared)[size]

    @staticmethod
    def _strided(n: Node) -> bool:
        return n.conv is not None and n.conv.stride > 1

    def _row(self, size: Size, phases: int) -> int:
        """Rows far enough apart for every convolution that writes the image."""
        writers = [
            n
            for n in self._writers[size]
            if phases == 1 or not (self._strided(n) or self._by_tiles(n))
        ]
        return max(
            [
                -(-size[1] // phases),
                *(window(n).row(self.sizes[n.inputs[0]], phases) for n in writers),
            ]
        )

    def _by_tiles(self, n: Node) -> bool:
        if n.conv is None or not self.tiles:
            return False
        return winograd.is_supported(n.conv, window(n), self.sizes[n])

    def _tiled(self, size: Size) -> Layout | None:
        tiles = any(map(self._by_tiles, self._writers[size]))
        return winograd.layout(size, self._row(size, 2)) if tiles else None

    def _make_room(self, n: Node) -> None:
        """As many zeros in front of the input as this convolution needs if it reads it directly."""
        size, out = self.sizes[n.inputs[0]], self.of(n)
        for kind in (self._plain, self._shared):
            if kind[size].phases == out.phases * window(n).stride:
                lead = window(n).lead(size, out.phases, out.row)
                kind[size] = replace(kind[size], lead=max(kind[size].lead, lead))


__all__ = ["Layouts", "Size", "Window", "shapes", "window"]
