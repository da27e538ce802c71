"""The native way of `dgc_conv2d`: the C++ kernels, as an operation that torch can trace and export."""

from __future__ import annotations

import torch
from torch import Tensor

from dgc.errors import ArgumentError, UsageError
from dgc.infer import winograd
from dgc.infer.conv import Conv, convolve, input_layout, needs_panel, select
from dgc.infer.emit import Emitter
from dgc.infer.memory import Buffer, Image, new_image, new_region
from dgc.infer.program import Plan
from dgc.kernels.cpu import library, weights
from dgc.kernels.cpu.layout import Layout, Window
from dgc.kernels.cpu.structs import Kind


def native_conv2d(
    x_BCHW: Tensor, weight_OCkk: Tensor, gates_BGC: Tensor, n_inactive: int, stride: int, padding: int, dilation: int,
    heads: int,
) -> Tensor:  # fmt: skip
    """The same as `masked_conv2d` up to rounding, for float32 on the CPU, without gradients.
    Returns (B, O, H', W').

    Raises UsageError where the kernels were not built, ArgumentError for other types or devices.
    """
    tensors = (x_BCHW, weight_OCkk, gates_BGC)
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):
        given = ", ".join(f"{t.dtype} on {t.device}" for t in tensors)
        raise ArgumentError(
            f"method='native' takes float32 on the CPU, given {given}; use method='auto'"
        )
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        raise ArgumentError(
            "method='native' has no gradients: use torch.inference_mode() or method='auto'"
        )
    y_BOHW: Tensor = _native_conv2d(
        x_BCHW, weight_OCkk, gates_BGC, n_inactive, stride, padding, dilation, heads
    )
    return y_BOHW


@torch.library.custom_op("dgc::native_conv2d", mutates_args=())
def _native_conv2d(
    x: Tensor,
    weight: Tensor,
    gates: Tensor,
    n_inactive: int,
    stride: int,
    padding: int,
    dilation: int,
    heads: int,
) -> Tensor:
    loaded = library.load()
    if loaded is None:
        raise UsageError(f"method='native': {library.describe()['why_not']}")
    gates_padded = weights.rows(gates.detach())
    conv = Conv(weight.detach(), None, stride, (padding,) * 2, (dilation,) * 2, heads, fc1=gates)
    plan = _plan(conv, (x.shape[1], x.shape[2], x.shape[3]), gates_padded.data_ptr())
    # The gates are at an address, so all samples go through at once.
    return plan.run(x.detach().contiguous(), loaded, torch.get_num_threads(), chunk=max(1, len(x)))


@_native_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    gates: Tensor,
    n_inactive: int,
    stride: int,
    padding: int,
    dilation: int,
    heads: int,
) -> Tensor:
    reach = dilation * (weight.shape[-1] - 1) + 1
    size = [(n + 2 * padding - reach) // stride + 1 for n in x.shape[2:]]
    return x.new_empty(x.shape[0], weight.shape[0], *size)


def _plan(conv: Conv, shape: tuple[int, int, int], gates: int) -> Plan:
    to = Emitter()
    k = int(conv.weight.shape[-1])
    w = Window((k, k), conv.stride, conv.padding, conv.dilation)
    size = w.output(shape[1:])
    if min(size) < 1:
        raise ArgumentError(
            f"a kernel of {k} with dilation {conv.dilation[0]} leaves no pixel of {shape[1:]}"
        )
    tiles = winograd.suits(conv, w, size)
    out = winograd.layout(size) if tiles else Layout(*size, 1, w.row(shape[1:], 1), 0)
    x = new_image(input_layout(conv, w, shape[1:], out), shape[0])
    y = new_image(out, int(conv.weight.shape[0]))
    to.emit(Kind.INPUT, {"dst": x})
    regions: dict[str, Buffer] = {}
    if needs_panel(conv, w, y.layout):
        regions["panel"] = new_region(int(conv.weight.numel()), "panel")
    regions["list"] = select(to, {}, conv, regions.get("panel"), external=gates)
    images: dict[str, Image] = {"src": x, "dst": y}
    convolve(to, conv, w, images, regions)
    to.emit(Kind.OUTPUT, {"src": y}, channels=y.channels)
    return to.finish(shape, (y.channels, *size))
