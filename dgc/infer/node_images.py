"""The images of a network's nodes while it becomes a program: where each lies, and copies of it in
the layout that a reader needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from dgc.infer.conv import HEAVY, layout_matches
from dgc.infer.emit import Emitter
from dgc.infer.graph import Node, UnknownError, ordered, users
from dgc.infer.memory import Buffer, Image, Region, new_image, new_region
from dgc.infer.shapes import Layouts, shapes
from dgc.kernels.cpu import weights
from dgc.kernels.cpu.layout import Layout, Window
from dgc.kernels.cpu.structs import Kind

TELLING = (Kind.DEPTHWISE, Kind.COMBINE)  # those that can tell the means of what they write


def acts(node: Node) -> dict[str, Any]:
    """The numbers of an operation that say which activation follows."""
    if node.relu:
        return {"relu": 1}
    # Operations hold whole numbers alone; the slope travels as its bits.
    bits = int(np.float32(node.slope).view(np.int32)) & 0xFFFFFFFF
    return {"act": int(node.act), "slope": bits} if node.act else {}


class NodeImages(Emitter):
    """Gives nodes their images, and emits what brings an image into the form that somebody
    reads.
    """

    def __init__(self, output: Node, in_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.nodes, self.output, self.in_shape = ordered(output), output, in_shape
        self.readers = users(self.nodes)
        self.images: dict[Node, Image] = {}
        self.vectors: dict[Node, tuple[Region, int]] = {}
        self.channels, self.sizes = shapes(self.nodes)
        self.layouts = Layouts(self.nodes, self.sizes)

    def target(self, node: Node) -> Image:
        """Where the node's result goes: its part of a concatenation's buffer, or a buffer of its
        own.
        """
        if node not in self.images:
            self.images[node] = self.inside_cat(node) or new_image(
                self.layouts.of(node), self.channels[node]
            )
        return self.images[node]

    def inside_cat(self, node: Node) -> Image | None:
        """The node's part of the buffer of a concatenation that reads it, so that concatenating
        copies nothing; None if there is none, or its pixels lie otherwise.
        """
        for reader in self.readers.get(node, []):
            # An image that is concatenated twice cannot lie in both places.
            if reader.kind != "cat" or reader.inputs.count(node) > 1:
                continue
            whole = self.target(reader)
            if not whole.layout.alike(self.layouts.of(node)):
                # what writes this image may need other padding; the concatenation copies it
                continue
            first = whole.first + sum(
                self.channels[i] for i in reader.inputs[: reader.inputs.index(node)]
            )
            return Image(whole.buffer, whole.layout, self.channels[node], first)
        return None

    def packed(self, source: Image, layout: Layout, node: Node | None = None) -> Image:
        """A copy in another layout, through the affine `node` if there is one."""
        copy = new_image(layout, source.channels)
        self.pack(source, copy, node)
        return copy

    def pack(self, source: Image, target: Image, node: Node | None = None) -> None:
        """Emit the copy from one image to another, through the affine `node` if there is one."""
        norm = {} if node is None else {"in_scale": node.scale, "in_shift": node.shift}
        after: dict[str, Any] = {} if node is None else acts(node)
        if after.pop("relu", 0):
            after = {"in_relu": 1}
        self.scratch = max(self.scratch, source.layout.width + 64)
        self.emit(Kind.PACK, {"src": source, "dst": target}, constants=norm, **after)

    def realised(self, node: Node) -> Image:
        """The node's image; an affine node is computed here if nobody could take it in, and a
        vector is spread over images of one pixel."""
        if node not in self.images and node in self.vectors:
            self.emit(Kind.SPREAD, {"dst": self.target(node)}, {"input": self.vectors[node][0]})
        if node not in self.images and node.kind == "affine":
            source = self.realised(node.inputs[0])
            self.pack(source, self.target(node), node)
        if node not in self.images:
            raise UnknownError(f"{node.kind} gives no image")
        return self.images[node]

    def arranged(self, node: Node, layout: Layout) -> Image:
        """The node's image, pixel for pixel where `layout` has them."""
        image = self.realised(node)
        return image if image.layout.alike(layout) else self.packed(image, layout)

    def readable(self, node: Node, w: Window, out: Layout) -> Image:
        """The node's image in a layout in which the window's taps lie at fixed offsets."""
        wanted = w.input_layout(self.sizes[node], out.phases, out.row)
        if node.kind == "affine" and node not in self.images:
            return self.packed(self.realised(node.inputs[0]), wanted, node)
        image = self.realised(node)
        return image if layout_matches(image.layout, wanted) else self.packed(image, wanted)

    def means(
        self, source: Image, scale: Tensor | None, shift: Tensor | None, relu: bool
    ) -> Region:
        """The mean of each channel, after scale, shift and ReLU where they are asked for."""
        told = None if scale is not None or relu else self._told_by_writer(source)
        if told is not None:
            return told
        region = new_region(source.channels, "means")
        norm = {"in_scale": scale, "in_shift": shift}
        self.emit(Kind.MEAN, {"src": source}, {"out": region}, norm, in_relu=int(relu))
        return region

    def _told_by_writer(self, image: Image) -> Region | None:
        """The means of an image from the operation that writes it, which has each channel near
        then; None where it cannot tell them.
        """
        steps = reversed(range(len(self.steps)))
        at = next((i for i in steps if self.steps[i].writes(image)), None)
        if at is None:
            return None
        step, wanted = self.steps[at], (image.first, image.channels)
        to = step.images["dst"]
        if step.op.kind not in TELLING or (to.first, to.channels) != wanted:
            return None
        if not step.op.span:
            region = new_region(image.channels, "means")
            region.uses.append(at)
            step.op.span, step.regions = 1, {**step.regions, "out": region}
        return step.regions["out"]

    def vector(self, node: Node) -> Region:
        """The node's numbers; of an image, its pixels one after the other."""
        if node not in self.vectors:
            image = self.realised(node)
            self.vectors[node] = (
                (self.means(image, None, None, False), image.channels)
                if node.one_pixel
                else (self.flattened(image), image.channels * node.shape[1] * node.shape[2])
            )
        return self.vectors[node][0]

    def flattened(self, image: Image) -> Buffer:
        region = new_region(image.channels * image.layout.height * image.layout.width, "flat")
        self.emit(Kind.FLATTEN, {"src": image}, {"out": region})
        return region

    def linear(
        self, x: Region, n: int, weight: Tensor, bias: Tensor | None, relu: bool, **after: Any
    ) -> Buffer:
        """weight (rows, n) times x, plus bias."""
        y = new_region(int(weight.shape[0]), "linear")
        heavy = int(weight.numel() * 4 >= HEAVY)
        self.emit(
            Kind.LINEAR,
            regions={"input": x, "out": y},
            constants={"weight": weights.rows(weight), "bias": bias},
            channels=n,
            outs=int(weight.shape[0]),
            relu=int(relu),
            batched=heavy,
            **after,
        )
        return y
