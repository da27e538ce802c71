"""The selected channels alone of input and weights are gathered, then multiplied in
one batched product.

Legend: B samples, G heads, J = O/G outputs of a head, K = C - n selected channels, P output pixels,
k kernel width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgc.layers.shuffle import interleave


def selected_channels(gates_BGC: Tensor, n_inactive: int) -> tuple[Tensor, Tensor]:
    """The C - n channels with the largest gates:
    values and indices, each (B, G, K). Fewer may be above zero.
    """
    return torch.topk(gates_BGC, gates_BGC.shape[-1] - n_inactive, dim=-1, sorted=False)


def gather_input(x_BCHW: Tensor, index_BGK: Tensor) -> Tensor:
    """Rows of x for every head: (B, G, K, H, W)."""
    b, c, h, w = x_BCHW.shape
    first_B11 = torch.arange(b, device=x_BCHW.device).view(b, 1, 1) * c
    rows = x_BCHW.reshape(b * c, h, w).index_select(0, (index_BGK + first_B11).flatten())
    return rows.view(*index_BGK.shape, h, w)


def gather_weight(weight_OCkk: Tensor, index_BGK: Tensor) -> Tensor:
    """Each head's weights of its selected channels, per sample: (B, G, K, J, k, k)."""
    heads, (o, c, k, _) = index_BGK.shape[1], weight_OCkk.shape
    rows_GCJkk = (
        weight_OCkk.view(heads, o // heads, c, k, k)
        .transpose(1, 2)
        .reshape(heads * c, o // heads, k, k)
    )
    first_G1 = torch.arange(heads, device=weight_OCkk.device).view(heads, 1) * c
    rows = rows_GCJkk.index_select(0, (index_BGK + first_G1).flatten())
    return rows.view(*index_BGK.shape, o // heads, k, k)


def gathered_conv2d(
    x_BCHW: Tensor,
    weight_OCkk: Tensor,
    gates_BGC: Tensor,
    n_inactive: int,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    """The same as `masked_conv2d` up to rounding,
    with C - n channels read per head. Returns (B, O, H', W').
    """
    gate_BGK, index_BGK = selected_channels(gates_BGC, n_inactive)
    w_BGKJkk = gather_weight(weight_OCkk, index_BGK)
    # channels beyond the selected ones that top-k took have gate 0, so they add nothing
    w_BGKJkk = w_BGKJkk * gate_BGK[..., None, None, None].to(w_BGKJkk.dtype)
    if weight_OCkk.shape[-1] == 1:
        return _product(_pixels(x_BCHW, stride, padding), w_BGKJkk[..., 0, 0], index_BGK)
    return _convolution(x_BCHW, w_BGKJkk, index_BGK, stride, padding, dilation)


def _pixels(x_BCHW: Tensor, stride: int, padding: int) -> Tensor:
    """The pixels that a 1x1 convolution reads."""
    if padding:
        x_BCHW = F.pad(x_BCHW, (padding,) * 4)
    return x_BCHW if stride == 1 else x_BCHW[:, :, ::stride, ::stride]


def _product(x_BCHW: Tensor, w_BGKJ: Tensor, index_BGK: Tensor) -> Tensor:
    x_BGKHW = gather_input(x_BCHW, index_BGK)
    y_BGJP = w_BGKJ.transpose(-1, -2) @ x_BGKHW.flatten(3)
    return interleave(y_BGJP.view(*y_BGJP.shape[:3], *x_BCHW.shape[-2:]))


def _convolution(
    x_BCHW: Tensor, w_BGKJkk: Tensor, index_BGK: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """Every (sample, head) pair is one group of one grouped convolution."""
    b, g, selected, j, k, _ = w_BGKJkk.shape
    # the batch becomes the channels of a single image, so that each pair has its own weights
    x_1NHW = gather_input(x_BCHW, index_BGK).view(1, b * g * selected, *x_BCHW.shape[-2:])
    w_MKkk = w_BGKJkk.transpose(2, 3).reshape(b * g * j, selected, k, k)
    y_1MHW = F.conv2d(x_1NHW, w_MKkk, None, stride, padding, dilation, b * g)
    return interleave(y_1MHW.view(b, g, j, *y_1MHW.shape[-2:]))
