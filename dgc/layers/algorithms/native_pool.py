"""Pooling by the C++ kernels, for float32 on the CPU: BatchNorm, ReLU and a max-pool or the mean of
the plane; and means of windows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dgc.kernels.cpu import norm_passes, train_passes
from dgc.kernels.cpu.norm_passes import MaximaPlaces, MaxPoolShape
from dgc.layers.algorithms.native_norm import affine_of, norm_grads
from dgc.layers.norm import Normaliser, Rule


def pool_of(module: nn.Module, x_BCHW: Tensor) -> MaxPoolShape | None:
    """The max-pool that `module` is, where the kernels know it."""
    if type(module) is not nn.MaxPool2d or module.return_indices or module.ceil_mode:
        return None
    kernel, stride, padding, dilation = (
        (int(value), int(value)) if isinstance(value, int) else tuple(value)
        for value in (module.kernel_size, module.stride, module.padding, module.dilation)
    )
    square = kernel[0] == kernel[1] and stride[0] == stride[1] and padding[0] == padding[1]
    if not square or dilation != (1, 1) or kernel[0] > norm_passes.MOST_PLACES:
        return None
    # what PyTorch refuses is left to it
    if stride[0] < 1 or not 0 <= 2 * padding[0] <= kernel[0]:
        return None
    h, w = ((n + 2 * padding[0] - kernel[0]) // stride[0] + 1 for n in x_BCHW.shape[2:])
    return MaxPoolShape(kernel[0], stride[0], padding[0], (h, w)) if h > 0 and w > 0 else None


def is_plane_mean(module: nn.Module) -> bool:
    return type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1))


class NativeMaxPool(torch.autograd.Function):
    """pool(relu(norm(x))), keeping x and a byte for each maximum."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, pool: MaxPoolShape, x: Tensor, *tensors: Tensor) -> Tensor:
        y, place = norm_passes.pool(x, affine_of(Normaliser.of(tensors, rule)), pool)
        ctx.rule, ctx.pool = rule, pool
        ctx.save_for_backward(x, place.of, *tensors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, of, *tensors = ctx.saved_tensors
        link, place = Normaliser.of(tensors, ctx.rule), MaximaPlaces(ctx.pool, of)
        grad, affine = train_passes.planes(grad), affine_of(link)
        sum_g, sum_gx, _ = norm_passes.pool_sums(grad, x, affine, place)
        found = norm_grads(link, (sum_g, sum_gx), x.numel() // x.shape[1])
        added = found.a.float(), found.b.float()
        grad_x = norm_passes.pool_back(grad, x, affine.scale, *added, place)
        return None, None, grad_x, found.weight, found.bias, None, None


class NativePlaneMean(torch.autograd.Function):
    """The mean of each plane of relu(norm(x)): (B, C, 1, 1), keeping x alone."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, x: Tensor, *tensors: Tensor) -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(x, *tensors)
        return train_passes.pooled(x, affine_of(Normaliser.of(tensors, rule)))[:, :, None, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors = ctx.saved_tensors
        link = Normaliser.of(tensors, ctx.rule)
        affine, each = affine_of(link), grad.flatten(1) / (x.shape[2] * x.shape[3])
        grad_x, sums = norm_passes.through_relu(each.contiguous(), x, affine)
        found = norm_grads(link, (sums[0], sums[1]), x.numel() // x.shape[1])
        added = found.a.float(), found.b.float()
        norm_passes.back(grad_x, x, affine.scale, *added, out=grad_x)
        return None, grad_x, found.weight, found.bias, None, None


class NativeMeanPool(torch.autograd.Function):
    """Means of windows of k x k pixels, side by side: nn.AvgPool2d(k)."""

    @staticmethod
    def forward(ctx: Any, k: int, x: Tensor) -> Tensor:
        ctx.k, ctx.shape = k, x.shape
        return norm_passes.window_means(x, k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, norm_passes.window_means_back(train_passes.planes(grad), ctx.shape, ctx.k)
