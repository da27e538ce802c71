"""BatchNorm, ReLU and a plain convolution or a pooling, as autograd functions for GPUs: what
dgc.layers.static has for a CPU, with BatchNorm in one launch (dgc.layers.batch_link) and the output
of the ReLU kept.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dgc.layers.algorithms.per_head import conv_backward_numbers
from dgc.layers.batch_link import BatchLink, first_pass
from dgc.layers.norm import relu_backward_, through_pool
from dgc.layers.own_autocast import without_autocast


def layout(x: Tensor) -> torch.memory_format:
    """The order in memory of an image's values."""
    # a tensor of one pixel or one channel is both: then it is called contiguous
    plain = x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if plain else torch.channels_last


class GpuStatic(torch.autograd.Function):
    """conv(relu(norm(x))), of: norm, numbers of the convolution, x, its weight, both of norm."""

    @staticmethod
    def forward(
        ctx: Any, norm: nn.BatchNorm2d, numbers: tuple[Any, ...], x: Tensor, weight: Tensor,
        *_: Tensor,
    ) -> Tensor:  # fmt: skip
        a_BCHW, link = first_pass(norm, x)
        ctx.rule, ctx.numbers = link.rule, numbers
        ctx.save_for_backward(x, a_BCHW, weight, *link[1:])
        return F.conv2d(a_BCHW, weight, None, *numbers).contiguous(memory_format=layout(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, a_BCHW, weight, *tensors = ctx.saved_tensors
        with without_autocast(grad):
            grad_a, grad_weight = conv_backward_numbers(grad, a_BCHW, weight, ctx.numbers)
            grad_a = relu_backward_(grad_a, a_BCHW)
            grad_x, *affine = BatchLink(ctx.rule, *tensors).backward(grad_a, x)
        return None, None, grad_x, grad_weight, *affine


class GpuPool(torch.autograd.Function):
    """pool(relu(norm(x))), of: norm, pool, x, weight and bias of norm."""

    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm2d, pool: nn.Module, x: Tensor, *_: Tensor) -> Tensor:
        a_BCHW, link = first_pass(norm, x)
        ctx.rule, ctx.pool = link.rule, pool
        ctx.save_for_backward(x, a_BCHW, *link[1:])
        y_BCHW = cast("Tensor", pool(a_BCHW))
        # a pooling that hands its input on must not hand out what is kept
        return y_BCHW.clone() if y_BCHW is a_BCHW else y_BCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, a_BCHW, *tensors = ctx.saved_tensors
        with without_autocast(grad):
            # the pooling is run again on a leaf, so that its own backward can be asked for
            with torch.enable_grad():
                leaf = a_BCHW.detach().requires_grad_()
                grad_a = through_pool(ctx.pool(leaf), leaf, grad)
            # not in place: where pooling hands its input on this is autograd's own gradient
            grad_a = torch.ops.aten.threshold_backward(grad_a, a_BCHW, 0)
            grad_x, *affine = BatchLink(ctx.rule, *tensors).backward(grad_a, x)
        return None, None, grad_x, *affine
