"""The one front of the dynamic group convolution: checks nothing twice, chooses a way, calls it."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from dgc.errors import ArgumentError
from dgc.layers.algorithms.gathered import gathered_conv2d
from dgc.layers.reference import masked_conv2d

Method = Literal["auto", "plain", "masked", "gathered"]
METHODS: tuple[Method, ...] = get_args(Method)


def choose(kernel_size: int, in_channels: int, n_inactive: int) -> Method:
    """The way that is fastest in plain PyTorch: gathering pays for 1x1 once half the channels are
    off.
    """
    return "gathered" if kernel_size == 1 and 2 * n_inactive >= in_channels else "masked"


def dgc_conv2d(
    x_BCHW: Tensor,
    weight_OCkk: Tensor,
    gates_BGC: Tensor,
    n_inactive: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    heads: int = 4,
    method: Method = "auto",
) -> Tensor:
    """Dynamic group convolution of an activated input: y_i = conv(x * g_i, w_i), then the channel
    shuffle.

    x (B, C, H, W); weight (O, C, k, k), head i owns rows i*O/G..(i+1)*O/G; gates (B, G, C), already
    zero where a channel is off, with at least `n_inactive` zeros in each row. Returns (B, O, H',
    W'), output channel j*G + i. Differentiable in x, weight and gates.
    """
    if gates_BGC.shape[1] != heads:
        raise ArgumentError(f"gates have {gates_BGC.shape[1]} heads, heads={heads} was given")
    if method in ("auto", "plain"):
        method = choose(weight_OCkk.shape[-1], x_BCHW.shape[1], n_inactive)
    if method == "masked":
        return masked_conv2d(x_BCHW, weight_OCkk, gates_BGC, stride, padding, dilation)
    if method == "gathered":
        return gathered_conv2d(
            x_BCHW, weight_OCkk, gates_BGC, n_inactive, stride, padding, dilation
        )
    raise ArgumentError(f"method={method!r}: one of {', '.join(METHODS)}")
