"""One dynamic convolution in the kernels with gates that a test makes up: the engine computes its
gates itself, and the oracle's odd cases (all, one, none selected) would be hard to reach there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgc.infer import winograd
from dgc.infer.conv import convolve, input_layout, needs_panel, select
from dgc.infer.conv_params import Conv
from dgc.infer.emit import Emitter
from dgc.infer.memory import Buffer, new_image, new_region
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library, weights
from dgc.kernels.cpu.layout import Layout, Window
from dgc.kernels.cpu.structs import Kind


def native_conv2d(
    x_BCHW: Tensor, weight_OCkk: Tensor, gates_BGC: Tensor, stride: int, padding: int, dilation: int,
    heads: int,
) -> Tensor:  # fmt: skip
    """The same as `masked_conv2d` up to rounding, for float32 on the CPU. (B, O, H', W')."""
    loaded = library.load()
    assert loaded is not None, library.describe()["why_not"]
    gates = weights.rows(gates_BGC)
    conv = Conv(weight_OCkk, None, stride, (padding,) * 2, (dilation,) * 2, heads, fc1=gates_BGC)
    plan = plan_of(conv, (x_BCHW.shape[1], x_BCHW.shape[2], x_BCHW.shape[3]), gates)
    # The gates of sample i are the i-th of the plan's, so all samples go through at once.
    return plan.run(x_BCHW.contiguous(), loaded, torch.get_num_threads(), chunk=max(1, len(x_BCHW)))


def plan_of(conv: Conv, shape: tuple[int, int, int], gates_BGC: Tensor) -> NativePlan:
    """The plan of one convolution of an image (channels, height, width); its gates are given,
    a row of padded floats for each sample and head.
    """
    to = Emitter()
    k = int(conv.weight.shape[-1])
    w = Window((k, k), conv.stride, conv.padding, conv.dilation)
    size = w.output(shape[1:])
    tiles = winograd.is_supported(conv, w, size)
    out = winograd.layout(size) if tiles else Layout(*size, 1, w.row(shape[1:], 1), 0)
    x = new_image(input_layout(conv, w, shape[1:], out), shape[0])
    y = new_image(out, int(conv.weight.shape[0]))
    to.emit(Kind.INPUT, {"dst": x})
    regions: dict[str, Buffer] = {}
    if needs_panel(conv, w, y.layout):
        regions["panel"] = new_region(int(conv.weight.numel()), "panel")
    regions["list"] = select(to, {}, conv, regions.get("panel"), external=gates_BGC)
    convolve(to, conv, w, {"src": x, "dst": y}, regions)
    to.emit(Kind.OUTPUT, {"src": y}, channels=y.channels)
    return to.finish(shape, (y.channels, *size))
