"""One sample after the other: its selected channels and their weights are gathered, then one
grouped convolution.

For kernels wider than 1 on the CPU: what one sample needs stays in the cache, and only selected
channels are multiplied. Legend: G heads, J = O/G outputs of a head, K selected channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgc.layers.algorithms.per_head import conv_backward
from dgc.layers.geometry import Geometry, Grads, Selected
from dgc.layers.shuffle import by_head, interleave


def forward(a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry) -> Tensor:
    """(B, C, H, W) -> (B, O, H', W'), shuffled."""
    forward_of = _all_forward if selected.index is None else _selected_forward
    return forward_of(a_BCHW, weight_OCkk, selected, geometry)


def backward(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Grads:
    backward_of = _all_backward if selected.index is None else _selected_backward
    return backward_of(grad_BOHW, a_BCHW, weight_OCkk, selected, geometry)


def _rows(weight_OCkk: Tensor, heads: int) -> Tensor:
    """Weights with the channels in front: (G, C, J, k, k)."""
    o, c, k, _ = weight_OCkk.shape
    return weight_OCkk.view(heads, o // heads, c, k, k).transpose(1, 2).contiguous()


def _unrows(w_GCJkk: Tensor) -> Tensor:
    return w_GCJkk.transpose(1, 2).flatten(0, 1)


def _gather(a_CHW: Tensor, rows_GCJkk: Tensor, index_GK: Tensor) -> tuple[Tensor, Tensor]:
    """One sample's selected channels (1, G*K, H, W) and their weights (G, K, J, k, k)."""
    # a channel that two heads selected is there twice: each head is a group of its own
    x_1NHW = a_CHW.index_select(0, index_GK.flatten())[None]
    return x_1NHW, torch.stack(
        [rows.index_select(0, i) for rows, i in zip(rows_GCJkk, index_GK, strict=True)]
    )


def _selected_forward(
    a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Tensor:
    assert selected.index is not None
    rows_GCJkk = _rows(weight_OCkk, geometry.heads)
    outputs = []
    for a_CHW, gate_GK, index_GK in zip(a_BCHW, selected.gate, selected.index, strict=True):
        x_1NHW, w_GKJkk = _gather(a_CHW, rows_GCJkk, index_GK)
        # the gate goes into the weights: they are smaller than the input
        w_GKJkk.mul_(gate_GK[..., None, None, None])
        outputs.append(F.conv2d(x_1NHW, _unrows(w_GKJkk), None, *geometry[:3], geometry.heads))
    y_BOHW = torch.cat(outputs)
    return interleave(y_BOHW.view(len(outputs), geometry.heads, -1, *y_BOHW.shape[-2:]))


def _selected_backward(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Grads:
    assert selected.index is not None
    rows_GCJkk = _rows(weight_OCkk, geometry.heads)
    grad_x, grad_rows, grad_gates = torch.zeros_like(a_BCHW), torch.zeros_like(rows_GCJkk), []
    for b, (gate_GK, index_GK) in enumerate(zip(selected.gate, selected.index, strict=True)):
        x_1NHW, w_GKJkk = _gather(a_BCHW[b], rows_GCJkk, index_GK)
        gate_GK111 = gate_GK[..., None, None, None]
        grad_1OHW = by_head(grad_BOHW[b : b + 1], geometry.heads).flatten(1, 2)
        grad_1NHW, grad_w = conv_backward(
            grad_1OHW, x_1NHW, _unrows(w_GKJkk * gate_GK111), geometry, geometry.heads
        )
        grad_GKJkk = grad_w.view(geometry.heads, -1, *grad_w.shape[1:]).transpose(1, 2)
        # y depends on w * g: its gradient times w is the gate's, times g the weight's
        grad_gates.append((grad_GKJkk * w_GKJkk).sum((2, 3, 4)))
        scaled_GKJkk = grad_GKJkk * gate_GK111
        # added, not set: samples select different channels of the same weights
        for head, index_K in enumerate(index_GK):
            grad_rows[head].index_add_(0, index_K, scaled_GKJkk[head])
        grad_x[b].index_add_(0, index_GK.flatten(), grad_1NHW[0])
    return Grads(grad_x, torch.stack(grad_gates), _unrows(grad_rows))


def _own_weights(weight_OCkk: Tensor, gate_GC: Tensor) -> Tensor:
    """One sample's weights w * g, rows in the order of the output channels."""
    # so that the convolution's output needs no shuffle behind it
    g = gate_GC.shape[0]
    w_JGCkk = weight_OCkk.view(g, -1, *weight_OCkk.shape[1:]).transpose(0, 1)
    return (w_JGCkk * gate_GC[..., None, None]).flatten(0, 1)


def _all_forward(
    a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Tensor:
    samples = zip(torch.split(a_BCHW, 1), selected.gate, strict=True)
    return torch.cat(
        [F.conv2d(a, _own_weights(weight_OCkk, gate), None, *geometry[:3]) for a, gate in samples]
    )


def _all_backward(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Grads:
    w_JGCkk = weight_OCkk.view(geometry.heads, -1, *weight_OCkk.shape[1:]).transpose(0, 1)
    grad_x, grad_gates, total_JGCkk = [], [], torch.zeros_like(w_JGCkk)
    for grad, a, gate_GC in zip(
        torch.split(grad_BOHW, 1), torch.split(a_BCHW, 1), selected.gate, strict=True
    ):
        own = _own_weights(weight_OCkk, gate_GC)
        grad_a, grad_w = conv_backward(grad, a, own, geometry, groups=1)
        grad_JGCkk = grad_w.view(w_JGCkk.shape)
        grad_x.append(grad_a)
        grad_gates.append((grad_JGCkk * w_JGCkk).sum((0, 3, 4)))
        total_JGCkk.addcmul_(grad_JGCkk, gate_GC[..., None, None])
    return Grads(
        torch.cat(grad_x),
        torch.stack(grad_gates),
        total_JGCkk.transpose(0, 1).reshape(weight_OCkk.shape),
    )
