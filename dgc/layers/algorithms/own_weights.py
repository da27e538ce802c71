"""1x1 convolutions with weights of each sample's own, w * gate, for GPUs: all heads in one batched
product, whose rows are already in the order of the output channels.

Nothing is gathered, copied or added by index, so nothing depends on an order of sums that a GPU
does not promise, and no size on how many channels are off. Legend: B samples, G heads, J = O/G
outputs of a head, C channels, P pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgc.layers.geometry import Geometry, Grads, Selected


def forward(a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry) -> Tensor:
    """(B, C, H, W) -> (B, O, H', W'), shuffled. No padding; all channels are selected."""
    a_BCHW = _pixels(a_BCHW, geometry.stride)
    b, c, h, w = a_BCHW.shape
    w_BOC = _gated(weight_OCkk, selected.gate, a_BCHW.dtype).view(b, -1, c)
    return torch.bmm(w_BOC, a_BCHW.reshape(b, c, h * w)).view(b, -1, h, w)


def backward(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Grads:
    small_BCHW, s = _pixels(a_BCHW, geometry.stride), geometry.stride
    b, c, h, w = small_BCHW.shape
    gate_BGC, dtype = selected.gate, a_BCHW.dtype
    grad_BOP = grad_BOHW.reshape(b, -1, h * w)
    w_BOC = _gated(weight_OCkk, gate_BGC, dtype).view(b, -1, c)
    grad_x = torch.bmm(w_BOC.transpose(1, 2), grad_BOP).view(b, c, h, w)
    # one product serves gates and weights: d(loss)/d(w * g) of each sample
    product_BJGC = torch.bmm(grad_BOP, small_BCHW.reshape(b, c, h * w).transpose(1, 2)).view(
        b, -1, geometry.heads, c
    )
    # in the precision of the input, which is less to read and write; summed in the parameters'
    w_BOC = w_BOC.view_as(product_BJGC)  # no longer needed: its memory is used again
    torch.mul(product_BJGC, _by_output(weight_OCkk, geometry.heads), out=w_BOC)
    grad_gate = w_BOC.sum(1, dtype=gate_BGC.dtype)
    torch.mul(product_BJGC, gate_BGC[:, None], out=product_BJGC)
    grad_w = torch.empty_like(weight_OCkk, memory_format=torch.contiguous_format)
    by_output_JGC = _by_output(grad_w, geometry.heads)
    torch.sum(product_BJGC, 0, dtype=grad_w.dtype, out=by_output_JGC)
    if s > 1:  # pixels that the stride steps over were not read
        full_BCHW = torch.zeros_like(a_BCHW)
        full_BCHW[:, :, ::s, ::s] = grad_x
        grad_x = full_BCHW
    return Grads(grad_x, grad_gate, grad_w)


def _pixels(a_BCHW: Tensor, stride: int) -> Tensor:
    return a_BCHW if stride == 1 else a_BCHW[:, :, ::stride, ::stride]


def _by_output(weight_OCkk: Tensor, heads: int) -> Tensor:
    """Weights as (J, G, C), a view: in the order of the output channels."""
    o, c = weight_OCkk.shape[:2]
    return weight_OCkk.view(heads, o // heads, c).transpose(0, 1)


def _gated(weight_OCkk: Tensor, gate_BGC: Tensor, dtype: torch.dtype) -> Tensor:
    """w * gate of each sample: (B, J, G, C) in `dtype`, rounded once."""
    b, heads, c = gate_BGC.shape
    out = gate_BGC.new_empty(b, len(weight_OCkk) // heads, heads, c, dtype=dtype)
    torch.mul(_by_output(weight_OCkk, heads), gate_BGC[:, None], out=out)
    return out
