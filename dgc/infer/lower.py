"""From the graph to a program: images in their layouts, and an operation for each node."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dgc.infer import conv_nodes
from dgc.infer.conv import HEAVY, fits
from dgc.infer.emit import Emitter
from dgc.infer.graph import Node, UnknownError, ordered, users
from dgc.infer.memory import Buffer, Image, new_image, new_region
from dgc.infer.program import Plan
from dgc.infer.shapes import Layouts, shapes
from dgc.kernels.cpu import weights
from dgc.kernels.cpu.layout import Layout, Window
from dgc.kernels.cpu.structs import Kind


class Lowering(Emitter):
    """Builds the plan of one network at one image size; `plan()` is the result."""

    def __init__(self, output: Node, in_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.nodes, self.output, self.in_shape = ordered(output), output, in_shape
        self.readers = users(self.nodes)
        self.images: dict[Node, Image] = {}
        self.vectors: dict[Node, tuple[Buffer, int]] = {}
        self.channels, self.sizes = shapes(self.nodes, in_shape)
        self.layouts = Layouts(self.nodes, self.sizes)

    # ---- images ----------------------------------------------------------------------------------

    def target(self, node: Node) -> Image:
        """Where the node's result goes: its part of a concatenation's buffer, or a buffer of its
        own.
        """
        if node not in self.images:
            self.images[node] = self._inside_cat(node) or new_image(
                self.layouts.of(node), self.channels[node]
            )
        return self.images[node]

    def _inside_cat(self, node: Node) -> Image | None:
        for reader in self.readers.get(node, []):
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
        self._pack(source, copy, node)
        return copy

    def _pack(self, source: Image, target: Image, node: Node | None = None) -> None:
        norm = {} if node is None else {"in_scale": node.scale, "in_shift": node.shift}
        relu = int(node is not None and node.relu)
        self.scratch = max(self.scratch, source.layout.width + 64)
        self.emit(Kind.PACK, {"src": source, "dst": target}, constants=norm, in_relu=relu)

    def realised(self, node: Node) -> Image:
        """The node's image; an affine node is computed here if nobody could take it in."""
        if node not in self.images and node.kind == "affine":
            source = self.realised(node.inputs[0])
            self._pack(source, self.target(node), node)
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
        return image if fits(image.layout, wanted) else self.packed(image, wanted)

    # ---- nodes -----------------------------------------------------------------------------------

    def plan(self) -> Plan:
        for node in self.nodes:
            self._node(node)
        if self.output in self.vectors:
            region, n = self.vectors[self.output]
            self.emit(Kind.OUTPUT, regions={"input": region}, channels=n)
            return self.finish(self.in_shape, (n, 1, 1) if self.output.kind == "mean" else (n,))
        image = self.realised(self.output)
        self.emit(Kind.OUTPUT, {"src": image}, channels=image.channels)
        return self.finish(self.in_shape, (image.channels, *self.sizes[self.output]))

    def _node(self, node: Node) -> None:
        kinds: dict[str, Callable[[Node], object]] = {
            "input": lambda n: self.emit(Kind.INPUT, {"dst": self.target(n)}),
            "conv": lambda n: conv_nodes.lower(self, n),
            "affine": self._affine,
            "add": self._add,
            "cat": self._cat,
            "pool": self._pool,
            "mean": self._mean,
            "flatten": self._flatten,
            "linear": self._linear,
        }
        kinds[node.kind](node)

    def _affine(self, node: Node) -> None:
        if self._inside_cat(node) is not None:
            self.realised(node)

    def _add(self, node: Node) -> None:
        target = self.target(node)
        a, b = (self.arranged(i, target.layout) for i in node.inputs)
        self.emit(Kind.ADD, {"src": a, "residual": b, "dst": target}, relu=int(node.relu))

    def _cat(self, node: Node) -> None:
        whole = self.target(node)
        first = whole.first
        for part in node.inputs:
            image = self.realised(part)
            if image.buffer is not whole.buffer or image.first != first:
                self._pack(image, Image(whole.buffer, whole.layout, image.channels, first))
            first += self.channels[part]

    def _pool(self, node: Node) -> None:
        kind, k, s, p = node.pool
        source, target = self.realised(node.inputs[0]), self.target(node)
        self.scratch = max(self.scratch, 4 * (source.layout.width + p) + 64)
        self.emit(
            Kind.POOL, {"src": source, "dst": target},
            pool_kind=int(kind == "average"), pool_kernel=k, pool_stride=s, pool_pad=p,
        )  # fmt: skip

    def _mean(self, node: Node) -> None:
        before = node.inputs[0]
        norm = before if before.kind == "affine" and before not in self.images else None
        source = self.realised(before if norm is None else norm.inputs[0])
        inside = norm or Node("affine")
        region = self.means(source, inside.scale, inside.shift, inside.relu)
        self.vectors[node] = region, source.channels

    def means(
        self, source: Image, scale: Tensor | None, shift: Tensor | None, relu: bool
    ) -> Buffer:
        region = new_region(source.channels, "means")
        norm = {"in_scale": scale, "in_shift": shift}
        self.emit(Kind.MEAN, {"src": source}, {"out": region}, norm, in_relu=int(relu))
        return region

    def _flatten(self, node: Node) -> None:
        before = node.inputs[0]
        if before not in self.vectors and self.sizes.get(before) == (1, 1):
            self._mean(node)
        if before in self.vectors:
            self.vectors[node] = self.vectors[before]
        if node not in self.vectors:
            raise UnknownError("flattening an image of more than one pixel")

    def _linear(self, node: Node) -> None:
        before = node.inputs[0]
        if before not in self.vectors or before.kind == "mean" or node.weight is None:
            raise UnknownError("a linear layer on an image")
        region, n = self.vectors[before]
        self.vectors[node] = (
            self.linear(region, n, node.weight, node.bias, node.relu),
            int(node.weight.shape[0]),
        )

    def linear(self, x: Buffer, n: int, weight: Tensor, bias: Tensor | None, relu: bool) -> Buffer:
        """weight (rows, n) times x, plus bias."""
        y = new_region(int(weight.shape[0]), "linear")
        heavy = int(weight.numel() * 4 >= HEAVY)
        self.emit(
            Kind.LINEAR, regions={"input": x, "out": y}, constants={"weight": weights.rows(weight), "bias": bias},
            channels=n, outs=int(weight.shape[0]), relu=int(relu), batched=heavy,
        )  # fmt: skip
        return y
