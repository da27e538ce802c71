"""Shapes of all nodes, and the layouts of their images."""

from __future__ import annotations

from dataclasses import replace

from dgc.infer import depthwise, winograd
from dgc.infer.graph import Node
from dgc.kernels.cpu.layout import Layout, Window

Size = tuple[int, int]


def window(node: Node) -> Window:
    """The window of a convolution node."""
    assert node.conv is not None
    kernel = (int(node.conv.weight.shape[2]), int(node.conv.weight.shape[3]))
    return Window(kernel, node.conv.stride, node.conv.padding, node.conv.dilation)


def shapes(nodes: list[Node]) -> tuple[dict[Node, int], dict[Node, Size]]:
    """Channels and (height, width) of every node."""
    return {n: n.channels for n in nodes}, {n: (n.shape[1], n.shape[2]) for n in nodes}


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
        # zeros between the rows of what a strided depthwise convolution reads
        self._beside = {
            sizes[n.inputs[0]]: sizes[n.inputs[0]][1] + n.conv.padding[1]
            for n in convs
            if n.conv is not None and n.conv.stride == 2 and depthwise.fits(n.conv)
        }
        self._plain = {size: Layout(*size, 1, self._row(size, 1), 0) for size in self._writers}
        self._shared = {size: self._tiled(size) or plain for size, plain in self._plain.items()}
        # Only now, for how far apart rows lie decides how many zeros are needed before the first.
        for n in convs:
            self._make_room(n)
            self._room_above(n)

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
                self._beside.get(size, 0) if phases == 1 else 0,
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

    def _room_above(self, n: Node) -> None:
        """Zeros above and below what a depthwise convolution reads row by row."""
        size = self.sizes[n.inputs[0]]
        if n.conv is None or not depthwise.fits(n.conv):
            return
        plain = self._plain[size]
        above = depthwise.lead(plain, n.conv.padding[0])
        # a short row is written as a whole vector, which reaches behind the last one
        for at, lead in ((size, above), (self.sizes[n], 16)):
            for kind in (self._plain, self._shared):
                if kind[at].phases == 1:
                    kind[at] = replace(kind[at], lead=max(kind[at].lead, lead))

    def _make_room(self, n: Node) -> None:
        """As many zeros in front of the input as this convolution needs if it reads it directly."""
        size, out = self.sizes[n.inputs[0]], self.of(n)
        for kind in (self._plain, self._shared):
            if kind[size].phases == out.phases * window(n).stride:
                lead = window(n).lead(size, out.phases, out.row)
                kind[size] = replace(kind[size], lead=max(kind[size].lead, lead))


__all__ = ["Layouts", "Size", "Window", "shapes", "window"]
