"""From the graph to a plan in 8 bits: convolutions in bytes, gates and classifier with weights of
16 bits, all the rest in float32, in an order that is the same on every machine.

Images between the operations stay float32; a convolution quantises what it reads, with a scale for
each sample and head, so nothing has to be calibrated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgc.infer.conv import HEAVY, few_pixels, layout_matches, select
from dgc.infer.conv_params import Conv
from dgc.infer.emit import Constant
from dgc.infer.graph import Node
from dgc.infer.image_nodes import window_numbers
from dgc.infer.lower import Lowering
from dgc.infer.memory import Buffer, Image, Part, Region, new_region
from dgc.infer.shapes import Layouts, window
from dgc.kernels.cpu import int8, weights
from dgc.kernels.cpu.layout import Layout, Window, up
from dgc.kernels.cpu.structs import Kind

FEW = 16  # channels of a source; the tiles of 64 channels (conv8.h: kFewFours) take more


@dataclass(frozen=True)
class Stats:
    """Regions with the mean and the largest magnitude of each channel of an image."""

    means: Region
    tops: Region


def leaves(node: Node, first: int, channels: dict[Node, int]) -> Iterator[tuple[Node, int]]:
    """The images that a concatenation consists of, and the first channel of each; of anything else
    itself.
    """
    if node.kind != "cat":
        yield node, first
        return
    for part in node.inputs:
        yield from leaves(part, first, channels)
        first += channels[part]


class Int8Lowering(Lowering):
    """Builds the plan of one network at one image size, in 8 bits."""

    exact = True

    def __init__(self, output: Node, in_shape: tuple[int, int, int]) -> None:
        super().__init__(output, in_shape)
        # No tiles: convolutions in bytes have one kernel, which reads images row after row.
        self.layouts = Layouts(self.nodes, self.sizes, tiles=False)
        self.stats: dict[Node, Stats] = {}
        self._copies: dict[tuple[Node, Layout], Image] = {}
        self._pooled: set[Node] = set()  # poolings that the convolution in front does
        self._read_by: dict[Node, list[tuple[Node, int]]] = {}
        self._places: dict[Node, tuple[int, int]] = {}
        # one place for all: what is told of an image lives until its last reader
        self._told = Buffer(up(self._readers_places()), object())

    def _readers_places(self) -> int:
        """Which dynamic convolutions see an image through a BatchNorm of their own, and where each
        finds what is told of its channels; how many numbers that is.
        """
        end = 0
        for node in self.nodes:
            if node.conv is None or node.conv.scale is None:
                continue
            width = up(int(node.conv.scale.numel()))
            self._places[node] = (end, end + width)
            end += 2 * width
            # By the parts of a concatenation, not the whole: a dense block's images are told of
            # once, when they are written, and not again for each layer that reads them.
            for leaf, first in leaves(node.inputs[0], 0, self.channels):
                self._read_by.setdefault(leaf, []).append((node, first))
        return end

    def _node(self, node: Node) -> None:
        super()._node(node)
        if node in self._read_by:
            self._tell(node, self._read_by[node])

    def _tell(self, node: Node, readers: list[tuple[Node, int]]) -> None:
        """Mean and largest magnitude of each of a node's channels for all that will read it, while
        it is near.
        """
        image = self.realised(node)
        norms, places = [], []
        for reader, first in readers:
            assert reader.conv is not None
            assert reader.conv.scale is not None
            assert reader.conv.shift is not None
            own = slice(first, first + image.channels)
            norms += [reader.conv.scale[own], reader.conv.shift[own]]
            places += [place + first for place in self._places[reader]]
        self.emit(
            Kind.READERS, {"src": image}, {"out": self._told},
            {"bias": torch.stack(norms), "weight": np.array(places, np.int64)},
            channels=image.channels, heads=len(readers), hidden=self._told.floats,
        )  # fmt: skip

    def convolution(self, node: Node) -> None:
        conv = node.conv
        assert conv is not None
        w, before, pool = window(node), node.inputs[0], self._pooled_alone(node)
        target, written = self.target(pool or node), self.layouts.of(node)
        images, regions = {"dst": target}, dict[str, Region]()
        if len(node.inputs) > 1:
            images["residual"] = self.arranged(node.inputs[1], written)
        if conv.dynamic:
            self.realised(before)
            stats = self._seen_by(node) if conv.scale is not None else self._stats_of(before)
            regions["list"] = self._selected(conv, stats.means)
        images["src"] = self._source(before, w, written)
        regions["input"] = stats.tops if conv.dynamic else self._stats_of(before).tops
        self._convolve(node, conv, w, images, regions, pool)

    def _source(self, node: Node, w: Window, written: Layout) -> Image:
        """A node's image as a convolution can read it: as it is, where the kernel has only to keep
        pixels apart that lie side by side.
        """
        if node.kind == "affine" and node not in self.images:
            return self.readable(node, w, written)  # a copy through the affine
        image, wanted = self.realised(node), w.input_layout(self.sizes[node], 1, written.row)
        apart = (image.layout.phases, wanted.phases) == (1, 2)
        return image if apart else self._laid_out(node, image, wanted)

    def _pooled_alone(self, node: Node) -> Node | None:
        """The pooling that is all that reads a convolution of few channels: then the kernel pools
        what it computes while it is near, and the larger image never exists.
        """
        readers = self.readers.get(node, [])
        pool = readers[0].pool if len(readers) == 1 else None
        if pool is None or node is self.output or len(node.inputs) > 1:
            return None
        high, wide = self.sizes[node]
        rows, columns = self.sizes[readers[0]]
        k, pad = pool.kernel[0], pool.padding[0]
        square = (pool.kernel, pool.padding, pool.stride) == ((k, k), (pad, pad), (2, 2))
        inside = (rows - 1) * 2 + k <= high + 2 * pad and (columns - 1) * 2 + k <= wide + 2 * pad
        fits = pool.kind == "max" and k in (2, 3) and square and inside
        few = self.channels[node.inputs[0]] <= FEW and self.layouts.of(readers[0]).phases == 1
        return readers[0] if fits and few and self.layouts.of(node).phases == 1 else None

    def _laid_out(self, node: Node, source: Image, wanted: Layout) -> Image:
        """A node's image in another layout, copied once for all that read it so."""
        if layout_matches(source.layout, wanted):
            return source
        alike = [
            wanted
        ]  # what other convolutions want of this image, which need more zeros in front
        for reader in self.readers[node]:
            if reader.conv is not None and reader.inputs[0] is node:
                row = self.layouts.of(reader).row
                alike.append(window(reader).input_layout(self.sizes[node], 1, row))
        lead = max(layout.lead for layout in alike if layout.alike(wanted))
        layout = replace(wanted, lead=lead)
        if (node, layout) not in self._copies:
            self._copies[node, layout] = self.packed(source, layout)
        return self._copies[node, layout]

    def _convolve(
        self,
        node: Node,
        conv: Conv,
        w: Window,
        images: dict[str, Image],
        regions: dict[str, Region],
        pool: Node | None,
    ) -> None:
        source, target = images["src"], images["dst"]
        written = self.layouts.of(node)
        wanted = w.input_layout(self.sizes[node.inputs[0]], 1, written.row)
        # A copy that is shared may have more zeros in front than this reader asks for.
        apart = source.layout.phases != wanted.phases
        read = wanted if apart else source.layout
        layouts: dict[str, tuple[Layout, int]] = {}
        if apart:
            layouts["bytes"] = read, source.channels
        pools: dict[str, Any] = {}
        if pool is not None:
            self._pooled.add(pool)
            layouts["unpooled"] = written, target.channels
            pools = window_numbers(pool)
        outs = int(conv.weight.shape[0]) // conv.groups
        rows = int8.quantise(conv.weight, conv.groups)
        constants: dict[str, Constant] = {
            "weight": rows.rows,
            "external": rows.scale,
            "bias": conv.bias,
            "offsets": w.offsets(read, 1),
            "in_scale": conv.scale,
            "in_shift": conv.shift,
        }
        asked = self._asked(node)
        # What is in registers anyway is counted up as it
        # is written, which saves a pass over the image.
        if asked:
            stats = self._new_stats(target.channels)
            self.stats[node] = stats
            regions = regions | {"out": stats.means, "panel": stats.tops}
        own = source.channels if conv.dynamic else source.channels // conv.groups
        room = int8.scratch_floats(read, own, conv.taps, outs)
        if pool is not None and pool.pool is not None:
            room += int8.pooled_floats(written, pool.pool.padding[0])
        self.scratch = max(self.scratch, room)
        self.emit(
            Kind.CONV8, images, regions, constants,
            channels=source.channels, heads=conv.groups, outs=outs, dynamic=int(conv.dynamic),
            taps=conv.taps, relu=int(node.relu), has_residual=int("residual" in images),
            out_step=conv.groups if conv.dynamic else 1, head_step=1 if conv.dynamic else outs,
            inactive=conv.n_inactive, span=int(asked),
            lanes=int(conv.scale is None and not not_negative(node.inputs[0])),
            batched=int(few_pixels(target.layout) and conv.weight.numel() >= HEAVY),
            # what is kept apart is masked as it is read
            around=w.padding != (0, 0) and not apart, layouts=layouts, **pools,
        )  # fmt: skip

    def _asked(self, node: Node) -> bool:
        """Whether somebody reads the mean or the largest magnitude of the result as it is."""
        readers = self.readers.get(node, [])
        return any(
            r.kind == "mean"
            or (r.conv is not None and r.inputs[0] is node and r.conv.scale is None)
            for r in readers
        )

    def _seen_by(self, node: Node) -> Stats:
        """What a convolution was told of its channels, behind its BatchNorm and ReLU."""
        means, tops = (Part(self._told, place) for place in self._places[node])
        return Stats(means, tops)

    def _stats_of(self, node: Node) -> Stats:
        """Mean and largest magnitude of each channel of a node's image."""
        if node not in self.stats:
            self.stats[node] = self._emit_stats(self.realised(node), None, None)
        return self.stats[node]

    def _emit_stats(self, source: Image, scale: Tensor | None, shift: Tensor | None) -> Stats:
        stats = self._new_stats(source.channels)
        regions = {"out": stats.means, "panel": stats.tops}
        norm = {"in_scale": scale, "in_shift": shift}
        self.emit(Kind.STATS, {"src": source}, regions, norm, channels=source.channels)
        return stats

    @staticmethod
    def _new_stats(channels: int) -> Stats:
        return Stats(new_region(channels, "means"), new_region(channels, "tops"))

    def _selected(self, conv: Conv, means: Region) -> Buffer:
        """The list of selected channels of every head."""
        assert conv.fc1 is not None
        assert conv.fc2 is not None
        assert conv.fc2_bias is not None
        heads, hidden, channels = conv.fc1.shape
        h = self.linear(
            means, channels, conv.fc1.reshape(heads * hidden, channels), None, relu=True
        )
        gates = new_region(heads * up(channels), "gates")
        rows = int8.halves(conv.fc2.transpose(1, 2))
        self.emit(
            Kind.GATES16, regions={"input": h, "out": gates},
            constants={
                "weight": rows.rows, "in_scale": rows.scale, "bias": weights.rows(conv.fc2_bias),
            },
            channels=channels, heads=heads, hidden=hidden,
            batched=int(conv.fc2.numel() * 2 >= HEAVY),
        )  # fmt: skip
        return select(self, {"input": gates}, conv, None)

    def pool(self, node: Node) -> None:
        if node not in self._pooled:
            super().pool(node)

    def means(
        self, source: Image, scale: Tensor | None, shift: Tensor | None, relu: bool
    ) -> Region:
        if relu and scale is None:
            # The kernel has no ReLU without scale and shift.
            scale, shift = torch.ones(source.channels), torch.zeros(source.channels)
        return self._emit_stats(source, scale, shift).means

    def mean(self, node: Node) -> None:
        before = node.inputs[0]
        if before in self.stats:
            self.vectors[node] = self.stats[before].means, self.channels[before]
            return
        if before.kind == "affine" and not before.relu:
            self.realised(before)
        super().mean(node)

    def linear(
        self, x: Region, n: int, weight: Tensor, bias: Tensor | None, relu: bool, **after: Any
    ) -> Buffer:
        y = new_region(int(weight.shape[0]), "linear")
        rows = int8.halves(weight)
        self.emit(
            Kind.ROWS16, regions={"input": x, "out": y},
            constants={"weight": rows.rows, "in_scale": rows.scale, "bias": bias},
            channels=n, outs=int(weight.shape[0]), relu=int(relu), **after,
            batched=int(weight.numel() * 2 >= HEAVY),
        )  # fmt: skip
        return y


def not_negative(node: Node) -> bool:
    """Whether no pixel of a node's image can be negative."""
    if node.relu:
        return True
    return node.kind in ("pool", "adaptive", "cat") and all(map(not_negative, node.inputs))
