"""The static parts of the networks, as autograd functions that keep the raw input and make
BN-ReLU's output again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dgc.layers import dispatch, support
from dgc.layers.algorithms.native_pool import (
    NativeMaxPool,
    NativeMeanPool,
    NativePlaneMean,
    is_plane_mean,
    pool_of,
)
from dgc.layers.algorithms.native_static import NativeStatic, static_shape
from dgc.layers.gpu_static import GpuPool, GpuStatic, layout
from dgc.layers.norm import Normaliser, Rule, normaliser, relu_backward_, through_pool
from dgc.layers.own_autocast import compute_dtype, without_autocast


def norm_relu_conv(
    norm: nn.Module, conv: nn.Conv2d, x_BCHW: Tensor, *, kernels: bool = True, triton: bool = False
) -> Tensor:
    """conv(relu(norm(x))), keeping x alone for backward where norm is a plain BatchNorm2d.

    `kernels`: by the C++ kernels where they can work and the convolution has groups;
    `triton`: by the GPU's, where they can.
    """
    # as dynamic layers do: autocast is applied by hand,
    # once, before the function with a backward of its own
    call = dispatch.StaticCall.of(norm, conv, x_BCHW, kernels=kernels, triton=triton)
    algorithm = dispatch.static(call)
    if algorithm == "modules":
        y_BOHW: Tensor = conv(norm(x_BCHW).relu_())
        return y_BOHW
    assert isinstance(norm, nn.BatchNorm2d)
    dtype = compute_dtype(x_BCHW)
    x_BCHW, weight = x_BCHW.to(dtype), conv.weight.to(dtype)
    with without_autocast(x_BCHW):
        if algorithm == "recompute" and support.gpu_functions(x_BCHW, triton=triton):
            by_gpu: Tensor = GpuStatic.apply(
                norm, _numbers(conv), x_BCHW, weight, norm.weight, norm.bias
            )
            return by_gpu
        link = normaliser(norm, x_BCHW, kernels=kernels, triton=triton)
        if algorithm == "native":
            h, w = x_BCHW.shape[2:]
            shape = static_shape(conv, (h, w))
            out: Tensor = NativeStatic.apply(link.rule, shape, x_BCHW, weight, *link[:4])
        elif algorithm == "triton":
            from dgc.layers.algorithms.triton import TritonStatic  # Triton is loaded where used

            out = TritonStatic.apply(link.rule, _numbers(conv), x_BCHW, weight, *link[:4])
        else:
            out = _NormReluConv.apply(link.rule, _numbers(conv), x_BCHW, weight, *link[:4])
    return out


def norm_relu_pool(
    norm: nn.Module,
    relu: nn.Module,
    pool: nn.Module,
    x_BCHW: Tensor,
    *,
    kernels: bool = True,
    triton: bool = False,
) -> Tensor:
    """pool(relu(norm(x))) for a pooling module,
    keeping x alone for backward where norm is a plain BatchNorm2d.

    `kernels`, `triton`: as above.
    """
    if not (
        support.can_fuse(x_BCHW) and support.splittable(norm, x_BCHW) and not pool._forward_hooks
    ):
        y_BCHW: Tensor = pool(relu(norm(x_BCHW)))
        return y_BCHW
    if support.gpu_functions(x_BCHW, triton=triton):
        by_gpu: Tensor = GpuPool.apply(norm, pool, x_BCHW, norm.weight, norm.bias)
        return by_gpu
    link = normaliser(norm, x_BCHW, kernels=kernels, triton=triton)
    looked_at = support.hooked(pool)
    if kernels and not looked_at and support.is_supported(x_BCHW, *support.norm_tensors(norm)):
        window = pool_of(pool, x_BCHW)
        if window is not None:
            by_window: Tensor = NativeMaxPool.apply(link.rule, window, x_BCHW, *link[:4])
            return by_window
        if is_plane_mean(pool):
            mean: Tensor = NativePlaneMean.apply(link.rule, x_BCHW, *link[:4])
            return mean
    if support.triton_for(x_BCHW, triton=triton):
        from dgc.layers.algorithms.triton import TritonPool  # Triton is loaded where it is used

        pooled: Tensor = TritonPool.apply(link.rule, pool, x_BCHW, *link[:4])
        return pooled
    out: Tensor = _NormReluPool.apply(link.rule, pool, x_BCHW, *link[:4])
    return out


def window_means(pool: nn.AvgPool2d, x_BCHW: Tensor, *, kernels: bool = True) -> Tensor:
    """The module's means, by the C++ kernels where they can."""
    k = pool.kernel_size
    side_by_side = pool.stride == k and not pool.padding and not pool.ceil_mode
    looked_at = support.hooked(pool) or pool.divisor_override is not None
    if (
        isinstance(k, int)
        and kernels
        and side_by_side
        and not looked_at
        and support.can_fuse(x_BCHW)
        and support.is_supported(x_BCHW)
    ):
        by_kernels: Tensor = NativeMeanPool.apply(k, x_BCHW)
        return by_kernels
    y_BCHW: Tensor = pool(x_BCHW)
    return y_BCHW


def _numbers(conv: nn.Conv2d) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    assert isinstance(conv.padding, tuple)
    return conv.stride, conv.padding, conv.dilation, conv.groups


def narrow_groups(weight_shape: Sequence[int], groups: int) -> bool:
    """Whether the CPU's grouped convolution is several times faster
    in channels-last (measured: O/G <= 4).
    """
    return groups > 1 and weight_shape[0] // groups <= 4


def _laid_out(x_BCHW: Tensor, weight: Tensor, numbers: tuple[Any, ...]) -> Tensor:
    if x_BCHW.device.type == "cpu" and narrow_groups(weight.shape, numbers[-1]):
        return x_BCHW.contiguous(memory_format=torch.channels_last)
    return x_BCHW


class _NormReluConv(torch.autograd.Function):
    """conv(relu(norm(x))): memory for x alone, paid for with a second BatchNorm and ReLU."""

    @staticmethod
    def forward(
        ctx: Any, rule: Rule, numbers: tuple[Any, ...], x: Tensor, weight: Tensor, *tensors: Tensor
    ) -> Tensor:
        ctx.rule, ctx.numbers = rule, numbers
        ctx.save_for_backward(x, weight, *tensors)
        # only x is kept; a copy in another layout is for this convolution alone
        a_BCHW = Normaliser.of(tensors, rule).activate(_laid_out(x, weight, numbers))
        return F.conv2d(a_BCHW, weight, None, *numbers).contiguous(memory_format=layout(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *tensors = ctx.saved_tensors
        link = Normaliser.of(tensors, ctx.rule)
        stride, padding, dilation, groups = ctx.numbers
        x = _laid_out(x, weight, ctx.numbers)
        # the activations once more, then the convolution's, the ReLU's and the BatchNorm's backward
        a_BCHW = link.activate(x)
        # PyTorch's own backward, given the activations that were made again
        grad_a, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad.contiguous(memory_format=layout(x)),
            a_BCHW,
            weight,
            None,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [True, True, False],
        )
        grad_x, grad_gamma, grad_beta = link.backward(relu_backward_(grad_a, a_BCHW), x)
        return None, None, grad_x, grad_weight, grad_gamma, grad_beta, None, None


class _NormReluPool(torch.autograd.Function):
    """pool(relu(norm(x))): memory for x alone, paid for with a second pooling."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, pool: nn.Module, x: Tensor, *tensors: Tensor) -> Tensor:
        ctx.rule, ctx.pool = rule, pool
        ctx.save_for_backward(x, *tensors)
        y_BCHW: Tensor = pool(Normaliser.of(tensors, rule).activate(x))
        return y_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *tensors = ctx.saved_tensors
        link = Normaliser.of(tensors, ctx.rule)
        # the pooling is run again on a leaf, so that its own backward can be asked for
        with torch.enable_grad():
            a_BCHW = link.activate(x).detach().requires_grad_()
            pooled_BCHW = ctx.pool(a_BCHW)
        grad_a = through_pool(pooled_BCHW, a_BCHW, grad)
        return (
            None,
            None,
            # a copy: where pooling hands its input on this is autograd's
            # own gradient, and the ReLU's backward writes in place
            *link.backward(relu_backward_(grad_a.clone(), a_BCHW.detach()), x),
            None,
            None,
        )
