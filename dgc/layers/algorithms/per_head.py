"""One head after the other: the head's masked input is made, convolved and dropped; made again in
backward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgc.layers.geometry import Geometry, Grads, Selected
from dgc.layers.shuffle import by_head, interleave


def forward(a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry) -> Tensor:
    """(B, C, H, W) -> (B, O, H', W'), shuffled; any kernel. All channels are selected."""
    # G convolutions of all channels; only one masked copy of the input lives at a time
    outputs = [
        F.conv2d(a_BCHW * gate_BC[..., None, None], w_JCkk, None, *geometry[:3])
        for gate_BC, w_JCkk in zip(
            selected.gate.unbind(1), weight_OCkk.chunk(geometry.heads), strict=True
        )
    ]
    return interleave(torch.stack(outputs, 1))


def backward(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Grads:
    grad_x = torch.zeros_like(a_BCHW)
    grad_gates, grad_weights = [], []
    by_head_BGJHW = by_head(grad_BOHW, geometry.heads)
    for i, w_JCkk in enumerate(weight_OCkk.chunk(geometry.heads)):
        gate_BC11 = selected.gate[:, i, :, None, None]
        # the masked input is made a second time, which is cheaper than keeping G of them
        grad_masked, grad_w = conv_backward(
            by_head_BGJHW[:, i].contiguous(), a_BCHW * gate_BC11, w_JCkk, geometry, groups=1
        )
        grad_x.addcmul_(grad_masked, gate_BC11)
        grad_gates.append(grad_masked.mul_(a_BCHW).sum((2, 3)))
        grad_weights.append(grad_w)
    return Grads(grad_x, torch.stack(grad_gates, 1), torch.cat(grad_weights))


def conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, groups: int
) -> tuple[Tensor, Tensor]:
    """Gradients of a plain convolution for its input and its weights."""
    numbers = (*([value] * 2 for value in geometry[:3]), groups)
    return conv_backward_numbers(grad, x, weight, numbers)


def conv_backward_numbers(
    grad: Tensor, x: Tensor, weight: Tensor, numbers: tuple[Any, ...]
) -> tuple[Tensor, Tensor]:
    """The same, of stride, padding and dilation (two each), and groups."""
    stride, padding, dilation, groups = numbers
    grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups, [True, True, False]
    )
    return grad_x, grad_w
