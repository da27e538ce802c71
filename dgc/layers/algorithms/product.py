"""1x1 convolutions as batched products, forward and backward by hand so that nothing but the input
has to be kept.

Legend: B samples, G heads, J = O/G outputs of a head, K selected channels, P pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgc.layers.geometry import Geometry, Grads, Selected, input_rows, weight_rows
from dgc.layers.shuffle import by_head, interleave


def forward(a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry) -> Tensor:
    """(B, C, H, W) -> (B, O, H', W'), shuffled. No padding."""
    a_BCHW = _pixels(a_BCHW, geometry.stride)
    b, c, h, w = a_BCHW.shape
    if selected.index is None:
        # all channels: gates go into the weights, which are already in the order of the outputs
        w_BOC = _all_weights(weight_OCkk, selected.gate)
        return torch.bmm(w_BOC, a_BCHW.reshape(b, c, h * w)).view(b, -1, h, w)
    x_NKP, w_NKJ = _gather(a_BCHW, weight_OCkk, selected.index)
    w_NKJ = w_NKJ * selected.gate.reshape(-1, w_NKJ.shape[1], 1)
    y_NJP = torch.bmm(w_NKJ.transpose(1, 2), x_NKP)
    return interleave(y_NJP.view(b, geometry.heads, -1, h, w))


def backward(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Grads:
    small_BCHW = _pixels(a_BCHW, geometry.stride)
    backward_of = _backward_all if selected.index is None else _backward_selected
    grads = backward_of(grad_BOHW, small_BCHW, weight_OCkk, selected, geometry.heads)
    if geometry.stride == 1:
        return grads
    # pixels that the stride steps over were not read
    full_BCHW = torch.zeros_like(a_BCHW)
    full_BCHW[:, :, :: geometry.stride, :: geometry.stride] = grads.x
    return grads._replace(x=full_BCHW)


def _pixels(a_BCHW: Tensor, stride: int) -> Tensor:
    return a_BCHW if stride == 1 else a_BCHW[:, :, ::stride, ::stride]


def _shuffled(weight_OCkk: Tensor, heads: int) -> Tensor:
    """Weights as (J, G, C): in the order of the output channels."""
    o, c = weight_OCkk.shape[:2]
    return weight_OCkk.view(heads, o // heads, c).transpose(0, 1).contiguous()


def _all_weights(weight_OCkk: Tensor, gate_BGC: Tensor) -> Tensor:
    """Each sample's own weights w * g, rows in the order of the output channels: (B, O, C)."""
    b, g, c = gate_BGC.shape
    w_BJGC = _shuffled(weight_OCkk, g) * gate_BGC[:, None]
    return w_BJGC.reshape(b, -1, c)


def _backward_all(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, heads: int
) -> Grads:
    b, c, h, w = a_BCHW.shape
    grad_BOP = grad_BOHW.reshape(b, -1, h * w)
    grad_x = torch.bmm(_all_weights(weight_OCkk, selected.gate).transpose(1, 2), grad_BOP).view(
        b, c, h, w
    )
    # one product serves gates and weights: d(loss)/d(w * g) of each sample
    product_BJGC = torch.bmm(grad_BOP, a_BCHW.reshape(b, c, h * w).transpose(1, 2)).view(
        b, -1, heads, c
    )
    grad_gate = (product_BJGC * _shuffled(weight_OCkk, heads)).sum(1)
    grad_w_JGC = (product_BJGC * selected.gate[:, None]).sum(0)
    return Grads(grad_x, grad_gate, grad_w_JGC.transpose(0, 1).reshape(weight_OCkk.shape))


def _gather(a_BCHW: Tensor, weight_OCkk: Tensor, index_BGK: Tensor) -> tuple[Tensor, Tensor]:
    """Selected channels of the input (B*G, K, P) and their weights (B*G, K, J)."""
    (b, c, h, w), (_, g, k) = a_BCHW.shape, index_BGK.shape
    x_NKP = (
        a_BCHW.reshape(b * c, h * w).index_select(0, input_rows(index_BGK, c)).view(b * g, k, h * w)
    )
    w_RJ = weight_OCkk.view(g, -1, c).transpose(1, 2).reshape(g * c, -1)
    return x_NKP, w_RJ.index_select(0, weight_rows(index_BGK, c)).view(b * g, k, -1)


def _backward_selected(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, heads: int
) -> Grads:
    gate_BGK, index_BGK = selected
    assert index_BGK is not None
    (b, c, h, w), k = a_BCHW.shape, index_BGK.shape[-1]
    x_NKP, w_NKJ = _gather(a_BCHW, weight_OCkk, index_BGK)
    grad_NJP = by_head(grad_BOHW, heads).reshape(b * heads, -1, h * w)
    gate_NK1 = gate_BGK.reshape(-1, k, 1)
    # as in _backward_all, for the selected channels
    product_NKJ = torch.bmm(x_NKP, grad_NJP.transpose(1, 2))
    grad_gate = (product_NKJ * w_NKJ).sum(-1).view(b, heads, k)
    # back to their places; several samples and heads may have read one row
    grad_w_RJ = weight_OCkk.new_zeros(heads * c, w_NKJ.shape[-1])
    grad_w_RJ.index_add_(0, weight_rows(index_BGK, c), (product_NKJ * gate_NK1).flatten(0, 1))
    grad_x_NKP = torch.bmm(w_NKJ * gate_NK1, grad_NJP)
    grad_x = a_BCHW.new_zeros(b * c, h * w).index_add_(
        0, input_rows(index_BGK, c), grad_x_NKP.flatten(0, 1)
    )
    grad_w_OC = grad_w_RJ.view(heads, c, -1).transpose(1, 2)
    return Grads(grad_x.view(b, c, h, w), grad_gate, grad_w_OC.reshape(weight_OCkk.shape))
