"""The dynamic group convolution as one differentiable function of an activated input and its
gates.
"""

from __future__ import annotations

from torch import Tensor

from dgc.errors import ArgumentError
from dgc.layers import dispatch
from dgc.layers.algorithms.gathered import gathered_conv2d
from dgc.layers.backend import Backend, check_backend
from dgc.layers.reference import masked_conv2d


def dgc_conv2d(
    x_BCHW: Tensor,
    weight_OCkk: Tensor,
    gates_BGC: Tensor,
    n_inactive: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    heads: int = 4,
    backend: Backend = "auto",
) -> Tensor:
    """Dynamic group convolution of an activated input:
    y_i = conv(x * g_i, w_i), then the channel shuffle.

    x (B, C, H, W); weight (O, C, k, k), head i owns rows i*O/G..(i+1)*O/G; gates (B, G, C), already
    zero where a channel is off, with at least `n_inactive` zeros in each row. Returns (B, O, H',
    W'), output channel j*G + i. Differentiable in x, weight and gates.
    """
    if gates_BGC.shape[1] != heads:
        raise ArgumentError(f"gates have {gates_BGC.shape[1]} heads, heads={heads} was given")
    check_backend(backend)
    call = dispatch.LayerCall(backend, weight_OCkk.shape[-1], padding, x_BCHW.shape[1], n_inactive)
    if dispatch.dynamic(call).algorithm == "gathered":
        return gathered_conv2d(
            x_BCHW, weight_OCkk, gates_BGC, n_inactive, stride, padding, dilation
        )
    return masked_conv2d(x_BCHW, weight_OCkk, gates_BGC, stride, padding, dilation)
