"""Fewer passes over memory: BatchNorm into weights, ReLU and residual addition into the operation
before them.
"""

from __future__ import annotations

from torch import Tensor

from dgc.infer.graph import Node, ordered, users


def fuse(output: Node) -> Node:
    """The same function with fewer nodes. Changes the graph in place and returns its output."""
    for rule in (_norm_into_conv, _relu_into_last, _sum_into_conv, _relu_into_last):
        output = _everywhere(output, rule)
    return output


def _everywhere(output: Node, rule: object) -> Node:
    for node in ordered(output):
        readers = users(ordered(output))
        merged = rule(node, readers)  # type: ignore[operator]
        if merged is None:
            continue
        for reader in readers.get(node, []):
            reader.inputs = [merged if i is node else i for i in reader.inputs]
        output = merged if node is output else output
    return output


def _only_reader(node: Node, readers: dict[Node, list[Node]]) -> bool:
    return len(readers.get(node, [])) == 1


def _norm_into_conv(node: Node, readers: dict[Node, list[Node]]) -> Node | None:
    if node.kind != "affine" or node.scale is None or node.shift is None:
        return None
    before = node.inputs[0]
    if (
        before.conv is None
        or before.relu
        or len(before.inputs) > 1
        or not _only_reader(before, readers)
    ):
        return None
    conv, relu = before.conv, node.relu
    conv.bias = node.shift if conv.bias is None else conv.bias * node.scale + node.shift
    conv.weight = (
        conv.weight * _by_row(node.scale, conv.groups if conv.dynamic else 1)[:, None, None, None]
    )
    before.relu = relu
    return before


def _by_row(scale_O: Tensor, heads: int) -> Tensor:
    """Per output channel j*G + i -> per weight row i*(O/G) + j."""
    return scale_O.view(-1, heads).t().reshape(-1)


def _relu_into_last(node: Node, readers: dict[Node, list[Node]]) -> Node | None:
    """A ReLU by itself belongs to what comes before it, if nobody else reads that."""
    if node.kind != "affine" or node.scale is not None or not node.relu:
        return None
    before = node.inputs[0]
    if before.kind not in ("conv", "add", "affine", "linear") or not _only_reader(before, readers):
        return None
    before.relu = True
    return before


def _sum_into_conv(node: Node, readers: dict[Node, list[Node]]) -> Node | None:
    """The later of the two summands takes the other as its residual."""
    if node.kind != "add" or node.inputs[0] is node.inputs[1]:
        return None
    for conv, other in (node.inputs, node.inputs[::-1]):
        plain = conv.conv is not None and not conv.relu and len(conv.inputs) == 1
        if plain and _only_reader(conv, readers) and conv not in ordered(other):
            conv.inputs.append(other)
            conv.relu = node.relu
            return conv
    return None
