"""From the graph to a program: an operation for each node."""

from __future__ import annotations

from collections.abc import Callable

from dgc.infer import conv_nodes, image_nodes, vector_nodes
from dgc.infer.graph import Node, UnknownError
from dgc.infer.memory import Image
from dgc.infer.node_images import NodeImages, acts
from dgc.infer.program import NativePlan
from dgc.kernels.cpu.structs import Kind, Mode

Rule = Callable[["Lowering", Node], object]


class Lowering(NodeImages):
    """Builds the plan of one network at one image size; `plan()` is the result."""

    def plan(self) -> NativePlan:
        for node in self.nodes:
            self._node(node)
        output = self.output
        if output in self.vectors and output not in self.images:
            region, n = self.vectors[output]
            self.emit(Kind.OUTPUT, regions={"input": region}, channels=n)
            return self.finish(self.in_shape, output.answer or (n,))
        image = self.realised(output)
        self.emit(Kind.OUTPUT, {"src": image}, channels=image.channels)
        return self.finish(self.in_shape, output.answer or output.shape)

    def _node(self, node: Node) -> None:
        rule, self.path = RULES.get(node.kind), node.path
        if rule is None:
            raise UnknownError(node.what or node.kind)
        rule(self, node)

    def convolution(self, node: Node) -> None:
        conv_nodes.lower_conv(self, node)

    def pool(self, node: Node) -> None:
        image_nodes.pool(self, node)

    def mean(self, node: Node) -> None:
        before = node.inputs[0]
        inside = Node("affine")
        # The kernel of means applies scale, shift and ReLU as it reads; any
        # other activation, or an image that is there already, is read as it is.
        if before.kind == "affine" and before not in self.images:
            if before.relu or not before.act:
                inside = before
            else:
                self.realised(before)
        source = self.realised(before if inside is not before else before.inputs[0])
        region = self.means(source, inside.scale, inside.shift, inside.relu)
        self.vectors[node] = region, source.channels


def _input(to: Lowering, node: Node) -> None:
    to.emit(Kind.INPUT, {"dst": to.target(node)})


def _affine(to: Lowering, node: Node) -> None:
    if vector_nodes.is_vector(to, node):
        vector_nodes.elementwise(to, node, Mode.ALONE)
    # Any other waits until somebody asks for its image: most readers take it in while they read.
    elif to.inside_cat(node) is not None:
        to.realised(node)


def _add(to: Lowering, node: Node) -> None:
    """Two images; anything else is a matter of image_nodes and vector_nodes."""
    a, b = node.inputs
    if vector_nodes.is_vector(to, node) or image_nodes.with_vector(to, node):
        _combine(to, node)
        return
    target = to.target(node)
    first, second = (to.arranged(i, target.layout) for i in (a, b))
    images = {"src": first, "residual": second, "dst": target}
    to.emit(Kind.ADD, images, around=True, **acts(node))  # adds the padding as well


def _combine(to: Lowering, node: Node) -> None:
    mode = {"add": Mode.PLUS, "sub": Mode.MINUS, "mul": Mode.TIMES}[node.kind]
    if vector_nodes.is_vector(to, node):
        vector_nodes.elementwise(to, node, mode)
    else:
        image_nodes.combine(to, node, mode)


def _cat(to: Lowering, node: Node) -> None:
    if vector_nodes.is_vector(to, node):
        vector_nodes.cat(to, node)
        return
    whole = to.target(node)
    first = whole.first
    for part in node.inputs:
        image = to.realised(part)
        if image.buffer is not whole.buffer or image.first != first:
            to.pack(image, Image(whole.buffer, whole.layout, image.channels, first))
        first += to.channels[part]


def _slice(to: Lowering, node: Node) -> None:
    """Channels that lie one after the other need no copy."""
    if vector_nodes.is_vector(to, node):
        vector_nodes.elementwise(to, node, Mode.ALONE)
        return
    image = to.realised(node.inputs[0])
    to.images[node] = Image(image.buffer, image.layout, node.channels, image.first + node.index[0])


def _gather(to: Lowering, node: Node) -> None:
    if vector_nodes.is_vector(to, node):
        vector_nodes.elementwise(to, node, Mode.ALONE)
    else:
        image_nodes.gather(to, node)


def _flatten(to: Lowering, node: Node) -> None:
    before = node.inputs[0]
    to.vectors[node] = to.vector(before), node.channels


def _linear(to: Lowering, node: Node) -> None:
    if node.weight is None:
        raise UnknownError("a linear layer without weights")
    x, before = to.vector(node.inputs[0]), node.inputs[0]
    n = before.shape[0] * before.shape[1] * before.shape[2]
    after = acts(node)
    relu = bool(after.pop("relu", 0))
    region = to.linear(x, n, node.weight, node.bias, relu, **after)
    to.vectors[node] = region, node.channels


RULES: dict[str, Rule] = {
    "input": _input,
    "conv": lambda to, n: to.convolution(n),
    "affine": _affine,
    "add": _add,
    "sub": _combine,
    "mul": _combine,
    "cat": _cat,
    "slice": _slice,
    "gather": _gather,
    "pool": lambda to, n: to.pool(n),
    "adaptive": image_nodes.adaptive,
    "resample": image_nodes.resample,
    "mean": lambda to, n: to.mean(n),
    "flatten": _flatten,
    "linear": _linear,
    "softmax": vector_nodes.softmax,
    "along": vector_nodes.along,
}
