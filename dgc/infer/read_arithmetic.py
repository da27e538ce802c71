"""Sums, products, activations, means: operations on equal images, vectors, and one of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgc.infer.graph import Node, UnknownError
from dgc.infer.trace import Trace, Traced
from dgc.kernels.cpu.structs import Act

Found = tuple[Node, Any, bool]


def binary(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    """a + b, a - b, a * b, a / b, of which one may be a number or a constant."""
    if kwargs.get("alpha", 1) != 1 or set(kwargs) - {"alpha", "other"} or kwargs.get("out"):
        raise UnknownError(f"{name} with {sorted(kwargs)}")
    a, b = args[0], args[1] if len(args) > 1 else kwargs["other"]
    if name in ("rsub", "rtruediv", "rdiv"):
        a, b, name = b, a, {"rsub": "sub"}.get(name, "div")
    if isinstance(a, Traced) and isinstance(b, Traced):
        return _two(trace, name, a, b, out)
    if isinstance(a, Traced):
        return _constant(trace, name, a, b, out)
    if name == "div":
        raise UnknownError("a number divided by an image")
    # A number minus an image is the image times -1, plus the number.
    x, s, kind, shape = _scaled(trace, b, a, out)
    if name != "sub":
        scale, shift = (s, 0) if name == "mul" else (1, s)
        return _affine(trace, x, scale, shift, kind, shape)
    return _affine(trace, x, -1, s, kind, shape)


def _constant(trace: Trace, name: str, a: Traced, b: Any, out: Tensor) -> Found:
    x, s, kind, shape = _scaled(trace, a, b, out)
    if name in ("mul", "div"):
        return _affine(trace, x, s if name == "mul" else 1 / s, 0, kind, shape)
    return _affine(trace, x, 1, s if name == "add" else -s, kind, shape)


def _scaled(trace: Trace, a: Traced, b: Any, out: Tensor) -> tuple[Node, Tensor, Any, Any]:
    """The image, and the constant as a number for each of its channels."""
    lead = trace.lead(out, a.node)
    if a.spread or tuple(out.shape[1:]) != tuple(a.shape[1:]):
        raise UnknownError("a constant of another shape than the image")
    x = trace.flat(a)
    value = b.detach() if isinstance(b, Tensor) else torch.tensor(float(b))
    if value.dim() >= out.dim() and value.shape[0] != 1:
        raise UnknownError("a constant for each image of a batch")
    if value.dim() >= out.dim():
        value = value[0]
    # In double until the end: scale and shift are folded into weights, which rounds once.
    wide = value.double().expand(tuple(out.shape[1:]))
    if not a.node.one_pixel:
        # One number for all pixels of a channel can be folded
        # into a convolution; a number for each cannot.
        if not (wide == wide[..., :1, :1]).all():
            raise UnknownError("a constant for each pixel")
        wide = wide[..., 0, 0]
    return x, wide.reshape(-1).clone(), None, lead


def _affine(trace: Trace, x: Node, scale: Any, shift: Any, index: Any, lead: Any) -> Found:
    one = torch.ones(x.channels, dtype=torch.float64)
    node = trace.node(
        "affine", [x], x.shape, scale=(one * scale).float(), shift=(one * shift).float()
    )
    return node, index, False


def _two(trace: Trace, name: str, a: Traced, b: Traced, out: Tensor) -> Found:
    if name == "div":
        raise UnknownError("an image divided by an image")
    images = [v for v in (a, b) if not v.node.one_pixel]
    if len({v.node.shape[1:] for v in images}) > 1:
        raise UnknownError(f"{name} of images of different size")
    if a.spread and b.spread:
        raise UnknownError(f"{name} of numbers that are spread over an image")
    shape = tuple(out.shape)
    lead = shape[1:-2] if images else shape[1:]
    nodes = [_operand(trace, v, lead, bool(images), len(shape)) for v in (a, b)]
    # The kernel takes the image first; sums and products may be turned round.
    if images and a.node.one_pixel:
        if name == "sub":
            raise UnknownError("a vector minus an image")
        nodes.reverse()
    size = images[0].node.shape[1:] if images else (1, 1)
    n = int(np.prod(lead, dtype=int))
    return trace.node(name, nodes, (n, *size)), None, False


def _operand(trace: Trace, v: Traced, lead: Any, among_images: bool, dims: int) -> Node:
    """Its channels, one for each of the result's."""
    index = v.index
    if among_images and v.node.one_pixel:
        if v.dim() != dims or index.shape[-2:] != (1, 1):
            raise UnknownError("an image and a vector of another form than (batch, channels, 1, 1)")
        index = index[..., 0, 0]
    broad = np.broadcast_to(index, lead)
    same = trace.tensor(torch.empty(0, *broad.shape, device="meta"), v.node, broad)
    return trace.flat(same)


def activation(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    """One of the activations that kernels know."""
    a = args[0] if args else kwargs["input"]
    act, slope = _which(name, args[1:], kwargs)
    x = trace.flat(a)
    node = trace.node("affine", [x], x.shape, act=act, slope=slope)
    return node, (None if not a.spread else a.index), a.spread


_PLAIN = {
    "relu": Act.RELU,
    "relu6": Act.RELU6,
    "hardswish": Act.HARDSWISH,
    "hardsigmoid": Act.HARDSIGMOID,
    "silu": Act.SILU,
    "sigmoid": Act.SIGMOID,
    "tanh": Act.TANH,
    "mish": Act.MISH,
}


def _which(name: str, args: Any, kwargs: Any) -> tuple[Act, float]:
    if name in _PLAIN:
        return _PLAIN[name], 0.0
    if name == "leaky_relu":
        return Act.LEAKY, float(args[0] if args else kwargs.get("negative_slope", 0.01))
    if name == "elu":
        return Act.ELU, float(args[0] if args else kwargs.get("alpha", 1.0))
    if name == "gelu":
        rounded = (args[0] if args else kwargs.get("approximate", "none")) == "tanh"
        return (Act.GELU_TANH if rounded else Act.GELU), 0.0
    low = args[0] if args else kwargs.get("min", kwargs.get("min_val", -1.0))
    high = args[1] if len(args) > 1 else kwargs.get("max", kwargs.get("max_val"))
    if low == 0 and high is None:
        return Act.RELU, 0.0
    if low == 0 and high == 6:
        return Act.RELU6, 0.0
    raise UnknownError(f"{name} to {low} and {high}")


def mean(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    """Over the pixels of an image."""
    a = args[0] if args else kwargs["input"]
    dims = _dims(a, args, kwargs)
    if a.spread or a.node.one_pixel or dims != [a.dim() - 2, a.dim() - 1] or kwargs.get("dtype"):
        if not a.spread and a.node.one_pixel and all(a.shape[d] == 1 for d in dims):
            return a.node, a.index.reshape(tuple(out.shape[1:])), False
        raise UnknownError(f"{name} over dimensions {dims}")
    x = trace.flat(a)
    node = trace.node("mean", [x], (x.channels, 1, 1))
    return node, np.arange(x.channels).reshape(tuple(out.shape[1:])), False


def _dims(a: Traced, args: Any, kwargs: Any) -> list[int]:
    dims = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    if dims is None:
        raise UnknownError("a mean or sum over everything")
    dims = [dims] if isinstance(dims, int) else list(dims)
    return sorted(d % a.dim() for d in dims)


def total(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    """A sum over one of the leading dimensions: of a few images, or of parts of a vector."""
    a = args[0] if args else kwargs["input"]
    dims = _dims(a, args, kwargs)
    if len(dims) != 1 or not 1 <= dims[0] <= a.index.ndim or a.spread:
        raise UnknownError(f"{name} over dimensions {dims}")
    parts = [np.take(a.index, i, dims[0] - 1) for i in range(a.index.shape[dims[0] - 1])]
    if len(parts) > 16:
        raise UnknownError(f"{name} of {len(parts)} channels")
    nodes = [
        trace.flat(trace.tensor(torch.empty(0, *p.shape, device="meta"), a.node, p)) for p in parts
    ]
    whole = nodes[0]
    for part in nodes[1:]:
        whole = trace.node("add", [whole, part], whole.shape)
    lead = trace.lead(out, whole)
    return whole, np.arange(whole.channels).reshape(lead), False


def softmax(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    a = args[0] if args else kwargs["input"]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if not a.node.one_pixel or a.spread or dim is None or dim % a.dim() == 0:
        raise UnknownError(f"{name} of an image")
    x, shape, axis = trace.flat(a), tuple(a.shape[1:]), dim % a.dim() - 1
    groups = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    return trace.node("softmax", [x], x.shape, groups=groups), None, False


TABLE: dict[str, Any] = {
    **dict.fromkeys(
        ("add", "sub", "subtract", "rsub", "mul", "multiply", "div", "divide", "rtruediv"), binary
    ),
    **dict.fromkeys(
        (*_PLAIN, "leaky_relu", "elu", "gelu", "hardtanh", "clamp", "clip"), activation
    ),
    "mean": mean,
    "sum": total,
    "softmax": softmax,
}
