"""From the graph to a program: an operation for each node."""

from __future__ import annotations

from collections.abc import Callable

from dgc.infer import conv_nodes
from dgc.infer.graph import Node, UnknownError
from dgc.infer.memory import Image
from dgc.infer.node_images import NodeImages
from dgc.infer.program import NativePlan
from dgc.kernels.cpu.structs import Kind


class Lowering(NodeImages):
    """Builds the plan of one network at one image size; `plan()` is the result."""

    def plan(self) -> NativePlan:
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
            "conv": self.convolution,
            "affine": self._affine,
            "add": self._add,
            "cat": self._cat,
            "pool": self._pool,
            "mean": self.mean,
            "flatten": self._flatten,
            "linear": self._linear,
        }
        kinds[node.kind](node)

    def convolution(self, node: Node) -> None:
        conv_nodes.lower_conv(self, node)

    def _affine(self, node: Node) -> None:
        if self.inside_cat(node) is not None:
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
                self.pack(image, Image(whole.buffer, whole.layout, image.channels, first))
            first += self.channels[part]

    def _pool(self, node: Node) -> None:
        kind, k, s, p = node.pool
        source, target = self.realised(node.inputs[0]), self.target(node)
        self.scratch = max(self.scratch, 4 * (source.layout.width + p) + 64)
        self.emit(
            Kind.POOL, {"src": source, "dst": target},
            pool_kind=int(kind == "average"), pool_kernel=k, pool_stride=s, pool_pad=p,
        )  # fmt: skip

    def mean(self, node: Node) -> None:
        before = node.inputs[0]
        norm = before if before.kind == "affine" and before not in self.images else None
        source = self.realised(before if norm is None else norm.inputs[0])
        inside = norm or Node("affine")
        region = self.means(source, inside.scale, inside.shift, inside.relu)
        self.vectors[node] = region, source.channels

    def _flatten(self, node: Node) -> None:
        before = node.inputs[0]
        if before not in self.vectors and self.sizes.get(before) == (1, 1):
            self.mean(node)
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
