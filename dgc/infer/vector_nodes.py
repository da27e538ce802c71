"""Nodes that are vectors: means, what linear layers give, factors of squeeze and excitation."""

from __future__ import annotations

from typing import Any

import numpy as np

from dgc.infer.graph import Node
from dgc.infer.memory import Region, new_region
from dgc.infer.node_images import NodeImages, acts
from dgc.kernels.cpu.structs import Kind, Mode


def is_vector(to: NodeImages, node: Node) -> bool:
    """Whether all that the node is made of are vectors already."""
    return node.one_pixel and all(i in to.vectors and i not in to.images for i in node.inputs)


def _acts(node: Node) -> dict[str, Any]:
    """ReLU is one of the activations here."""
    after = acts(node)
    return {"act": int(node.act)} if after.pop("relu", 0) else after


def _emit(to: NodeImages, node: Node, regions: dict[str, Region], n: int, **numbers: Any) -> None:
    index = np.array(node.index, np.int32) if node.index else None
    to.emit(
        Kind.VECTOR,
        regions=regions,
        constants={"in_scale": node.scale, "in_shift": node.shift, "index": index},
        outs=n,
        **numbers,
    )


def elementwise(to: NodeImages, node: Node, mode: Mode) -> None:
    """act((a o b) * scale + shift)"""
    n = node.channels
    out = new_region(n, "vector")
    regions = {"input": to.vector(node.inputs[0]), "out": out}
    if mode != Mode.ALONE:
        regions["list"] = to.vector(node.inputs[1])
    _emit(to, node, regions, n, channels=node.inputs[0].channels, mode=int(mode), **_acts(node))
    to.vectors[node] = out, n


def cat(to: NodeImages, node: Node) -> None:
    out, first = new_region(node.channels, "joined"), 0
    # Copied, unlike images: vectors are short, and each lies where its own operation put it.
    for part in node.inputs:
        n = part.channels
        regions = {"input": to.vector(part), "out": out}
        to.emit(Kind.VECTOR, regions=regions, channels=n, outs=n, out_first=first)
        first += n
    to.vectors[node] = out, node.channels


def softmax(to: NodeImages, node: Node) -> None:
    out = new_region(node.channels, "vector")
    groups, among, inner = node.groups
    regions = {"input": to.vector(node.inputs[0]), "out": out}
    to.emit(
        Kind.SOFTMAX, regions=regions, heads=groups, taps=among, outs=inner,
        channels=node.channels, **_acts(node),
    )  # fmt: skip
    to.vectors[node] = out, node.channels


def along(to: NodeImages, node: Node) -> None:
    assert node.weight is not None
    out = new_region(node.channels, "vector")
    regions = {"input": to.vector(node.inputs[0]), "out": out}
    constants = {"weight": node.weight, "bias": node.bias}
    to.emit(
        Kind.ALONG, regions=regions, constants=constants, channels=node.inputs[0].channels,
        outs=node.channels, taps=len(node.weight), pool_pad=node.index[0], **_acts(node),
    )  # fmt: skip
    to.vectors[node] = out, node.channels
