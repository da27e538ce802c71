"""Nodes that combine images, move their channels or their pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dgc.infer.emit import Constant
from dgc.infer.graph import Node
from dgc.infer.node_images import NodeImages, acts
from dgc.kernels.cpu.structs import Kind, Mode


def with_vector(to: NodeImages, node: Node) -> bool:
    """Whether the second operand is a number a channel."""
    a, b = node.inputs
    return b.one_pixel and not a.one_pixel


def _acts(node: Node) -> dict[str, Any]:
    after = acts(node)
    return {"act": int(node.act)} if after.pop("relu", 0) else after


def combine(to: NodeImages, node: Node, mode: Mode) -> None:
    target = to.target(node)
    images = {"src": to.arranged(node.inputs[0], target.layout), "dst": target}
    second, number = node.inputs[1], int(with_vector(to, node))
    regions = {}
    if number:
        regions["input"] = to.vector(second)
    else:
        images["residual"] = to.arranged(second, target.layout)
    to.emit(Kind.COMBINE, images, regions, mode=int(mode), has_vector=number, **_acts(node))


def gather(to: NodeImages, node: Node) -> None:
    target = to.target(node)
    images = {"src": to.arranged(node.inputs[0], target.layout), "dst": target}
    index = {"index": np.array(node.index, np.int32)}
    to.emit(Kind.GATHER, images, constants=index, around=True)  # copies the padding as well


def window_numbers(node: Node) -> dict[str, Any]:
    """The numbers of an operation that say by which windows it pools."""
    p = node.pool
    assert p is not None
    return {
        "pool_kind": int(p.kind == "average"),
        "pool_kernel": p.kernel[0],
        "pool_stride": p.stride[0],
        "pool_pad": p.padding[0],
        "pool_kernel_w": p.kernel[1],
        "pool_stride_w": p.stride[1],
        "pool_pad_w": p.padding[1],
    }


def pool(to: NodeImages, node: Node) -> None:
    p = node.pool
    assert p is not None
    source, target = to.realised(node.inputs[0]), to.target(node)
    # The kernel copies each row with its padding, and whatever the last window reaches beyond.
    windows = (target.layout.width - 1) * p.stride[1] + p.kernel[1]
    reach = max(source.layout.width + p.padding[1], windows)
    to.scratch = max(to.scratch, source.layout.width + reach + target.layout.width + 160)
    counts: dict[str, Constant] = {} if p.counts is None else {"weight": torch.cat(p.counts)}
    to.emit(
        Kind.POOL,
        {"src": source, "dst": target},
        constants=counts,
        **window_numbers(node),
    )


def adaptive(to: NodeImages, node: Node) -> None:
    p = node.adaptive
    assert p is not None
    source, target = to.realised(node.inputs[0]), to.target(node)
    # pools.h: a row of the source, the sum of a window's rows, the row that is written
    to.scratch = max(to.scratch, 2 * (source.layout.width + 16) + target.layout.width)
    constants: dict[str, Constant] = {
        "index": torch.cat([p.rows.reshape(-1), p.columns.reshape(-1)])
    }
    if p.kind == "average":
        constants["weight"] = torch.cat([1.0 / (s[1] - s[0]).float() for s in (p.rows, p.columns)])
    to.emit(
        Kind.ADAPTIVE, {"src": source, "dst": target}, constants=constants,
        pool_kind=int(p.kind == "average"),
    )  # fmt: skip


def resample(to: NodeImages, node: Node) -> None:
    r = node.resample
    assert r is not None
    source, target = to.realised(node.inputs[0]), to.target(node)
    to.scratch = max(to.scratch, 2 * (source.layout.width + 64))
    places = torch.cat([r.rows.reshape(-1), r.columns.reshape(-1)]).to(torch.int32).contiguous()
    shares = torch.cat([r.row_share, r.column_share]).float().contiguous()
    to.emit(
        Kind.RESAMPLE, {"src": source, "dst": target}, constants={"index": places, "weight": shares}
    )
