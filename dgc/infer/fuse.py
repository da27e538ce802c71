"""Fewer passes over memory: BatchNorm into weights, activations and residual additions into the
operation before them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgc.infer.graph import Node, ordered, users

Readers = dict[Node, list[Node]]
Rule = Callable[[Node, Readers], Node | None]


def fuse(output: Node, *, relu_alone: bool = False) -> Node:
    """The same function with fewer nodes. Changes the graph in place and returns its output.

    `relu_alone`: no other activation joins a convolution, a linear layer or a sum (plans in 8
    bits).
    """
    # Rules replace the last node as well; what form the answer has belongs to whichever is last.
    answer = output.answer

    def join(node: Node, readers: Readers) -> Node | None:
        return None if relu_alone and not node.relu else _act_into_last(node, readers)

    # Before the rules, which look at who reads a node: nesting changes that.
    _nest_cats(output)
    for rule in (_norm_into_conv, join, _sum_into_conv, join):
        output = _everywhere(output, rule)
    _norms_into_selections(output)
    output.answer = answer
    return output


def _nest_cats(output: Node) -> None:
    """A concatenation that begins as another one does takes that one as its first part: both then
    lie in one buffer, where a dense block would otherwise copy all its layers for each layer.
    """
    known: dict[tuple[Node, ...], Node] = {}
    for node in ordered(output):
        if node.kind != "cat":
            continue
        parts = tuple(node.inputs)
        # The longest beginning first: the rest is then least.
        for length in range(len(parts) - 1, 1, -1):
            start = known.get(parts[:length])
            if start is not None and not start.act:
                node.inputs = [start, *parts[length:]]
                break
        known.setdefault(parts, node)


def _everywhere(output: Node, rule: Rule) -> Node:
    nodes = ordered(output)
    readers = users(nodes)
    for node in nodes:
        merged = rule(node, readers)
        if merged is None:
            continue
        behind = readers.pop(node, [])
        for reader in behind:
            reader.inputs = [merged if i is node else i for i in reader.inputs]
        for i in {*node.inputs, *merged.inputs}:
            left = [r for r in readers.get(i, []) if r not in (node, merged)]
            readers[i] = left + [merged] * merged.inputs.count(i)
        readers[merged] = behind
        output = merged if node is output else output
    return output


def _only_reader(node: Node, readers: Readers) -> bool:
    return len(readers.get(node, [])) == 1


def _norm_into_conv(node: Node, readers: Readers) -> Node | None:
    if node.kind != "affine" or node.scale is None or node.shift is None:
        return None
    before = node.inputs[0]
    # Scale and shift pass neither an activation nor a residual.
    if before.act or len(before.inputs) > 1 or not _only_reader(before, readers):
        return None
    if before.conv is not None:
        conv = before.conv
        conv.bias = node.shift if conv.bias is None else conv.bias * node.scale + node.shift
        rows = _by_row(node.scale, conv.groups if conv.dynamic else 1)
        conv.weight = conv.weight * rows[:, None, None, None]
    elif before.kind == "linear" and before.weight is not None:
        bias = torch.zeros_like(node.shift) if before.bias is None else before.bias
        before.bias = bias * node.scale + node.shift
        before.weight = before.weight * node.scale[:, None]
    else:
        return None
    before.act, before.slope = node.act, node.slope
    return before


def _norms_into_selections(output: Node) -> None:
    """BatchNorm and ReLU in front of a dynamic convolution become a part of it, as in our own
    networks: then only the channels that it keeps go through them, while they are read.
    """
    nodes = ordered(output)
    readers = users(nodes)
    for node in nodes:
        conv, before = node.conv, node.inputs[0] if node.inputs else node
        if conv is None or not conv.dynamic or conv.scale is not None or before.kind != "affine":
            continue
        if before.relu and before.scale is not None and _only_reader(before, readers):
            conv.scale, conv.shift = before.scale, before.shift
            if conv.shift is None:
                conv.shift = torch.zeros_like(before.scale)
            node.inputs[0] = before.inputs[0]


def _by_row(scale_O: Tensor, heads: int) -> Tensor:
    """Per output channel j*G + i -> per weight row i*(O/G) + j."""
    return scale_O.view(-1, heads).t().reshape(-1)


def _act_into_last(node: Node, readers: Readers) -> Node | None:
    """An activation by itself belongs to what comes before it, if nobody else reads that."""
    if node.kind != "affine" or node.scale is not None or not node.act:
        return None
    before = node.inputs[0]
    kinds = ("conv", "add", "sub", "mul", "affine", "linear", "along")
    if before.kind not in kinds or before.act or not _only_reader(before, readers):
        return None
    before.act, before.slope = node.act, node.slope
    return before


def _sum_into_conv(node: Node, readers: Readers) -> Node | None:
    """The later of the two summands takes the other as its residual."""
    if node.kind != "add" or node.inputs[0] is node.inputs[1]:
        return None
    for conv, other in (node.inputs, node.inputs[::-1]):
        plain = conv.conv is not None and not conv.act and len(conv.inputs) == 1
        fits = plain and conv.shape == other.shape and _only_reader(conv, readers)
        # The other must not be made of this one: the convolution would wait for itself.
        if fits and conv not in ordered(other):
            conv.inputs.append(other)
            conv.act, conv.slope = node.act, node.slope
            return conv
    return None
