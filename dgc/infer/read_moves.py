"""Operations that only move channels: views, slices, concatenations, shuffles. Each is run on the
numbers of the channels themselves; where whole channels come out, it is known which."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from dgc.infer.graph import Node, Resample, UnknownError
from dgc.infer.trace import BATCH, Trace, Traced

JOINS = {"cat", "concat", "concatenate", "stack", "hstack"}
SPREADS = {"expand", "expand_as"}


def move(trace: Trace, name: str, args: Any, kwargs: Any, result: Any) -> Any:
    """(node, index, spread) of each tensor in the result."""
    leaves, spec = tree_flatten((args, kwargs))
    given = [v for v in leaves if isinstance(v, Traced)]
    if any(isinstance(v, Tensor) and not isinstance(v, Traced) for v in leaves):
        raise UnknownError(f"{name} with a tensor that does not depend on the image")
    if name in SPREADS and given[0].node.one_pixel:
        return _spread(given[0], result)
    if any(v.spread for v in given):
        raise UnknownError(f"{name} of numbers that are spread over an image")
    whole = trace.flat if name in JOINS else (lambda v: v.node)
    nodes = list(dict.fromkeys(whole(v) for v in given))
    if len({n.shape[1:] for n in nodes}) > 1:
        raise UnknownError(f"{name} of images of different size")
    # Every pixel gets a number of its own, and the operation
    # moves numbers: what it does to channels is then read off.
    numbered = [_numbers(v, nodes, name in JOINS, whole) for v in given]
    numbers = iter(numbered)
    parts = [next(numbers) if isinstance(v, Traced) else v for v in leaves]
    inputs, named = tree_unflatten(parts, spec)
    moved = _again(name, inputs, named)
    total = sum(n.channels for n in nodes)
    joined = nodes[0]
    if len(nodes) > 1:
        joined = trace.node("cat", nodes, (total, *nodes[0].shape[1:]))
    return [
        _placed(trace, name, m, joined) for m in tree_flatten(moved)[0] if isinstance(m, Tensor)
    ]


def _numbers(v: Traced, nodes: list[Node], joins: bool, whole: Any) -> Tensor:
    """(image of the batch * channels + channel) * pixels + pixel, in the form of the tensor."""
    node = whole(v)
    first = sum(n.channels for n in nodes[: nodes.index(node)])
    lead = np.arange(node.channels).reshape(v.index.shape) if joins else v.index
    total = sum(n.channels for n in nodes)
    height, width = node.shape[1:]
    channels = np.arange(BATCH).reshape(-1, *[1] * lead.ndim) * total + first + lead
    if node.one_pixel:
        return torch.from_numpy(channels)
    pixels = np.arange(height * width).reshape(height, width)
    return torch.from_numpy(channels[..., None, None] * (height * width) + pixels)


def _again(name: str, inputs: Any, named: Any) -> Any:
    method = {"getitem": "__getitem__"}.get(name, name)
    function = getattr(Tensor, method, None) or getattr(torch, method, None)
    if name in JOINS:
        function = getattr(torch, name)
    if function is None:
        function = getattr(torch.nn.functional, name)
    return function(*inputs, **named)


def _placed(trace: Trace, name: str, moved: Tensor, node: Node) -> tuple[Any, ...]:
    """Which channels of the node each leading place of the result holds."""
    ids = moved.numpy()
    _, height, width = node.shape
    pixels, total = height * width, node.channels
    if ids.ndim < 2 or ids.shape[0] != BATCH:
        raise UnknownError(f"{name} that mixes the images of a batch")
    if node.one_pixel:
        index = ids[0]
        if not (ids == index + np.arange(BATCH).reshape(-1, *[1] * index.ndim) * total).all():
            raise UnknownError(f"{name} that mixes the images of a batch")
        return node, index, False
    if ids.ndim >= 3 and ids.shape[-2:] == (height, width):
        # By its first pixel, of the first image; whether
        # all the others went along is then compared.
        index = ids[0, ..., 0, 0] // pixels
        if (ids == _expected(index, total, height, width)).all():
            return node, index, False
    if ids.ndim == 2 and ids.shape[1] % pixels == 0:
        return _flattened(trace, name, ids, node)
    if ids.ndim >= 3:
        return _cut(trace, name, ids, node)
    raise UnknownError(f"{name} that mixes pixels and channels")


def _expected(index: Any, total: int, height: int, width: int) -> Any:
    images = np.arange(BATCH).reshape(-1, *[1] * index.ndim) * total
    grid = np.arange(height * width).reshape(height, width)
    return (images + index)[..., None, None] * (height * width) + grid


def _flattened(trace: Trace, name: str, ids: Any, node: Node) -> tuple[Any, ...]:
    _, height, width = node.shape
    n = ids.shape[1] // (height * width)
    shaped = ids.reshape(BATCH, n, height, width)
    index = shaped[0, :, 0, 0] // (height * width)
    if not (shaped == _expected(index, node.channels, height, width)).all():
        raise UnknownError(f"{name} that mixes pixels and channels")
    whole = node
    if len(index) != node.channels or not (index == np.arange(n)).all():
        whole = trace.node("gather", [node], (n, height, width), index=tuple(map(int, index)))
    return trace.node("flatten", [whole], (ids.shape[1], 1, 1)), None, False


def _cut(trace: Trace, name: str, ids: Any, node: Node) -> tuple[Any, ...]:
    """Rows and columns of an image: every second one, all but the last, in another order."""
    _, height, width = node.shape
    first = ids[0].reshape(-1, *ids.shape[-2:])[0] % (height * width)
    rows, columns = first[:, 0] // width, first[0] % width
    index = ids[0, ..., 0, 0] // (height * width)
    images = np.arange(BATCH).reshape(-1, *[1] * index.ndim) * node.channels
    wanted = (images + index)[..., None, None] * (height * width) + rows[:, None] * width + columns
    if not (ids == wanted).all():
        raise UnknownError(f"{name} that mixes pixels and channels")
    plan = Resample(
        _doubled(rows), _doubled(columns), torch.zeros(len(rows)), torch.zeros(len(columns))
    )
    made = trace.node("resample", [node], (node.channels, len(rows), len(columns)), resample=plan)
    return made, index if not made.one_pixel else index[..., None, None], False


def _doubled(places: Any) -> Tensor:
    return torch.from_numpy(np.stack([places, places]).astype(np.int32))


def _spread(v: Traced, result: Tensor) -> tuple[Any, ...]:
    """A number a channel over an image: kept as the vector it is."""
    lead = tuple(result.shape[1:-2])
    if v.index.ndim < 2 or v.index.shape[-2:] != (1, 1):
        raise UnknownError("expand of something that is no number a channel")
    index = np.broadcast_to(v.index, (*lead, 1, 1)).copy()
    return v.node, index, tuple(result.shape[-2:]) != (1, 1)


TABLE: dict[str, Any] = dict.fromkeys(
    (
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "transpose",
        "permute",
        "swapaxes",
        "swapdims",
        "movedim",
        "chunk",
        "split",
        "split_with_sizes",
        "tensor_split",
        "unbind",
        "select",
        "narrow",
        "getitem",
        "unsqueeze",
        "squeeze",
        "contiguous",
        "clone",
        "flip",
        "cat",
        "concat",
        "concatenate",
        "stack",
        "expand",
        "expand_as",
        "roll",
        "channel_shuffle",
        "view_as",
        "reshape_as",
        "detach",
        "alias",
    ),
    move,
)
