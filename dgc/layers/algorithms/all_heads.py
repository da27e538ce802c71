"""All heads' masked inputs in one pass, for GPUs: each head convolves its own, and what stands
around the convolutions is done for all heads at once. Any kernel; all channels are multiplied.

It holds G masked copies of the input while it works, and makes them again in backward. One
convolution with a group for each head would be fewer launches, but grouped convolutions are slow
in a GPU's library (benchmarks/gpu.md). Legend: B samples, G heads, J = O/G outputs of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dgc.layers.algorithms.per_head import conv_backward
from dgc.layers.geometry import Geometry, Grads, Selected
from dgc.layers.shuffle import by_head


def forward(a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry) -> Tensor:
    """(B, C, H, W) -> (B, O, H', W'), shuffled. All channels are selected."""
    masked_GBCHW = a_BCHW * _gate(selected, a_BCHW)
    outputs = [
        F.conv2d(masked_BCHW, w_JCkk, None, *geometry[:3])
        for masked_BCHW, w_JCkk in zip(masked_GBCHW, weight_OCkk.chunk(geometry.heads), strict=True)
    ]
    return torch.stack(outputs, 2).flatten(1, 2)


def backward(
    grad_BOHW: Tensor, a_BCHW: Tensor, weight_OCkk: Tensor, selected: Selected, geometry: Geometry
) -> Grads:
    gate_GBC11 = _gate(selected, a_BCHW)
    grad_GBJHW = by_head(grad_BOHW, geometry.heads).transpose(0, 1).contiguous()
    found = [
        conv_backward(grad_BJHW, masked_BCHW, w_JCkk, geometry, groups=1)
        for grad_BJHW, masked_BCHW, w_JCkk in zip(
            grad_GBJHW, a_BCHW * gate_GBC11, weight_OCkk.chunk(geometry.heads), strict=True
        )
    ]
    grads_x, grads_w = zip(*found, strict=True)
    grad_GBCHW = torch.stack(grads_x)
    grad_gate = (grad_GBCHW * a_BCHW).sum((3, 4), dtype=selected.gate.dtype).transpose(0, 1)
    return Grads(grad_GBCHW.mul_(gate_GBC11).sum(0), grad_gate, torch.cat(grads_w))


def _gate(selected: Selected, a_BCHW: Tensor) -> Tensor:
    return selected.gate.transpose(0, 1).to(a_BCHW.dtype)[..., None, None]
