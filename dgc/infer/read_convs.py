"""Convolutions, dynamic layers, linear layers, BatchNorm: operations with weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dgc.infer.conv_params import Conv
from dgc.infer.graph import Node, UnknownError
from dgc.infer.trace import Trace, Traced
from dgc.kernels.cpu.layout import Window
from dgc.kernels.cpu.structs import Act
from dgc.layers import DynamicGroupConv2d

Found = tuple[Node, Any, bool]


def constant(t: Any) -> Tensor:
    """A weight as float32 on the CPU."""
    if isinstance(t, Traced) or not isinstance(t, Tensor):
        raise UnknownError("weights that are computed from the image")
    if t.dtype != torch.float32 or t.device.type != "cpu":
        raise UnknownError(f"{t.dtype} on {t.device}; the kernels know float32 on the CPU")
    return t.detach().clone()


def named(args: Any, kwargs: Any, names: str, **defaults: Any) -> dict[str, Any]:
    """Arguments by position and by name, under their names."""
    given: dict[str, Any] = dict(zip(names.split(), args, strict=False))
    return {**defaults, **given, **kwargs}


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    values = tuple(int(v) for v in value)
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def convolution(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    a = named(
        args, kwargs, "input weight bias stride padding dilation groups",
        bias=None, stride=1, padding=0, dilation=1, groups=1,
    )  # fmt: skip
    x = _image(trace, a["input"])
    weight, bias = constant(a["weight"]), None if a["bias"] is None else constant(a["bias"])
    stride, dilation = _pair(a["stride"]), _pair(a["dilation"])
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    padding = _padding(a["padding"], kernel, dilation)
    shape = (int(out.shape[1]), int(out.shape[2]), int(out.shape[3]))
    # Of squeeze and excitation, mostly: 1x1 convolutions on what was an image.
    if x.one_pixel and shape[1:] == (1, 1):
        return _on_vector(trace, x, weight, bias, padding, dilation, a["groups"]), None, False
    if stride[0] != stride[1]:
        raise UnknownError(f"a convolution of stride {stride}")
    conv = Conv(weight, bias, stride[0], padding, dilation, int(a["groups"]))
    return trace.node("conv", [x], shape, conv=conv), None, False


def _image(trace: Trace, t: Any) -> Node:
    if not isinstance(t, Traced) or t.spread or t.dim() != 4:
        raise UnknownError("a convolution of something that is no image")
    return trace.flat(t)


def _padding(given: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    if given == "valid":
        return 0, 0
    if given == "same":
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if any(r % 2 for r in reach):
            raise UnknownError("a convolution whose padding is not the same on both sides")
        return reach[0] // 2, reach[1] // 2
    return _pair(given)


def _on_vector(
    trace: Trace, x: Node, weight: Tensor, bias: Tensor | None, padding: tuple[int, int],
    dilation: tuple[int, int], groups: int,
) -> Node:  # fmt: skip
    """One pixel in, one pixel out: only the tap that lies on it counts."""
    row, column = padding[0] // dilation[0], padding[1] // dilation[1]
    tap = weight[:, :, row, column]
    if groups > 1:
        blocks = tap.reshape(groups, -1, tap.shape[1])
        tap = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    shape = (int(tap.shape[0]), 1, 1)
    return trace.node("linear", [x], shape, weight=tap.contiguous(), bias=bias)


def linear(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    a = named(args, kwargs, "input weight bias", bias=None)
    x = a["input"]
    if not isinstance(x, Traced) or x.spread or not x.node.one_pixel or x.dim() != 2:
        raise UnknownError("a linear layer on more than one vector")
    weight = constant(a["weight"])
    bias = None if a["bias"] is None else constant(a["bias"])
    shape = (int(weight.shape[0]), 1, 1)
    return trace.node("linear", [trace.flat(x)], shape, weight=weight, bias=bias), None, False


def along(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    """A convolution over the channels' means, one number after the other (ECA)."""
    a = named(
        args, kwargs, "input weight bias stride padding dilation groups",
        bias=None, stride=1, padding=0, dilation=1, groups=1,
    )  # fmt: skip
    x, weight = a["input"], constant(a["weight"])
    padding, numbers = _pair(a["padding"])[0], (a["stride"], a["dilation"], a["groups"])
    plain = all(_pair(n)[0] == 1 for n in numbers) and weight.shape[:2] == (1, 1)
    if not isinstance(x, Traced) or not x.node.one_pixel or not plain or x.dim() != 3:
        raise UnknownError("a convolution along one dimension")
    bias = None if a["bias"] is None else constant(a["bias"])
    node = trace.node(
        "along",
        [trace.flat(x)],
        (int(out.shape[2]), 1, 1),
        weight=weight.reshape(-1),
        bias=bias,
        index=(padding,),
    )
    return node, None, False


def folded(
    mean: Tensor | None, var: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """BatchNorm at evaluation as (scale, shift), computed in float64."""
    if mean is None or var is None:
        raise UnknownError("BatchNorm without running statistics")
    scale = (constant(var).double() + eps).rsqrt()
    if weight is not None:
        scale = scale * constant(weight).double()
    shift = -constant(mean).double() * scale
    if bias is not None:
        shift = shift + constant(bias).double()
    return scale.float(), shift.float()


def batch_norm(trace: Trace, name: str, args: Any, kwargs: Any, out: Tensor) -> Found:
    a = named(
        args, kwargs, "input running_mean running_var weight bias training momentum eps",
        weight=None, bias=None, training=False, eps=1e-5,
    )  # fmt: skip
    if a["training"]:
        raise UnknownError("BatchNorm in training mode, or without running statistics")
    x = a["input"]
    if x.spread or x.index.ndim not in (1, 3):
        raise UnknownError("BatchNorm of something that is no image")
    flat = trace.flat(x)
    scale, shift = folded(a["running_mean"], a["running_var"], a["weight"], a["bias"], a["eps"])
    if len(scale) != flat.channels:
        raise UnknownError("BatchNorm of something that is no image")
    return trace.node("affine", [flat], flat.shape, scale=scale, shift=shift), None, False


def _of_module(norm: nn.Module) -> tuple[Tensor, Tensor]:
    if type(norm) is not nn.BatchNorm2d or norm.training:
        raise UnknownError(f"{type(norm).__name__} inside a DynamicGroupConv2d, or training mode")
    return folded(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


def dynamic(trace: Trace, m: DynamicGroupConv2d, x: Traced, before: nn.Module | None) -> Traced:
    """A dynamic layer; `before`, a BatchNorm whose ReLU'd output it reads."""
    shape = Window((m.kernel_size,) * 2, m.stride, (m.padding,) * 2, (m.dilation,) * 2)
    height, width = shape.output((int(x.shape[2]), int(x.shape[3])))
    meta = torch.empty(x.shape[0], m.out_channels, height, width, device="meta")
    size = (m.out_channels, height, width)
    try:
        node = trace.node("conv", [_before(trace, x, before)], size, conv=_conv_of(m))
    except UnknownError as e:
        node = trace.node("unknown", [x.node], size, what=str(e))
    return trace.tensor(meta, node)


def _before(trace: Trace, x: Traced, norm: nn.Module | None) -> Node:
    flat = _image(trace, x)
    if norm is None:
        return flat
    scale, shift = _of_module(norm)
    return trace.node("affine", [flat], flat.shape, scale=scale, shift=shift, act=Act.RELU)


def _conv_of(m: DynamicGroupConv2d) -> Conv:
    if m.training:
        raise UnknownError("DynamicGroupConv2d in training mode; call model.eval() first")
    scale, shift = (None, None) if m.norm is None else _of_module(m.norm)
    return Conv(
        constant(m.weight),
        None if m.bias is None else constant(m.bias),
        m.stride,
        (m.padding,) * 2,
        (m.dilation,) * 2,
        m.heads,
        constant(m.fc1),
        constant(m.fc2),
        constant(m.fc2_bias),
        m.n_inactive,
        scale,
        shift,
    )


TABLE: dict[str, Any] = {
    "conv2d": convolution,
    "linear": linear,
    "conv1d": along,
    "batch_norm": batch_norm,
}
