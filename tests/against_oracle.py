"""Kernels for GPUs against the oracle in float64, on a GPU (tests/gpu) and in Triton's interpreter."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

import dgc
from dgc.layers import DynamicGroupConv2d


def clear_of_the_kink(layer: DynamicGroupConv2d, x: Tensor) -> Tensor:
    """`x` moved a little where the ReLU behind the BatchNorm has its kink, at which a rounding
    decides to which side a value falls.
    """
    with torch.no_grad():
        near = copy.deepcopy(layer).norm(x).abs() < 2e-2  # type: ignore[misc]
    return torch.where(near, x + 0.1, x)


def outcome(
    layer: DynamicGroupConv2d, x: Tensor, dtype: torch.dtype, *, coarse: bool = False
) -> list[Tensor]:
    """Output, then the gradients of x and of each parameter; fp16 and bf16 by autocast. `coarse`:
    the gradient that arrives is rounded to bf16.
    """
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    half = dtype in (torch.float16, torch.bfloat16)
    with torch.autocast(x.device.type, dtype=dtype if half else None, enabled=half):
        y = layer(x)
    factor = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).sin()
    if coarse:
        factor = factor.bfloat16().double()
    loss = (y.double() * factor.to(y.device)).sum()
    (loss + 0.3 * dgc.gate_l1(layer)).backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


def worst(ours: list[Tensor], oracle: list[Tensor]) -> float:
    """Largest error of a tensor over its largest value; one that vanishes counts with 1e-2."""
    return max(
        ((a.double().cpu() - b).abs().max() / b.abs().max().clamp(min=1e-2)).item()
        for a, b in zip(ours, oracle, strict=True)
    )
