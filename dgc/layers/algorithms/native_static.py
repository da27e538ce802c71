"""BatchNorm, ReLU and a grouped convolution by the C++ kernels, for float32 on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dgc.kernels.cpu import train_passes
from dgc.kernels.cpu.train_passes import PassShape
from dgc.layers.algorithms.native_norm import affine_of, input_grad
from dgc.layers.norm import Normaliser, Rule


def static_shape(conv: nn.Conv2d, size: tuple[int, int]) -> PassShape:
    (kh, kw), (dh, dw) = conv.kernel_size, conv.dilation
    assert not isinstance(conv.padding, str)
    return PassShape(
        conv.in_channels,
        size,
        conv.groups,
        conv.out_channels // conv.groups,
        (kh, kw),
        conv.stride[0],
        (conv.padding[0], conv.padding[1]),
        (dh, dw),
        static=True,
    )


class NativeStatic(torch.autograd.Function):
    """conv(relu(norm(x))) of a grouped convolution, keeping x alone."""

    @staticmethod
    def forward(
        ctx: Any, rule: Rule, shape: PassShape, x: Tensor, weight: Tensor, *tensors: Tensor
    ) -> Tensor:
        # x alone: BN-ReLU is folded into the kernels' reading of it, forward and backward
        ctx.rule, ctx.shape = rule, shape
        ctx.save_for_backward(x, weight, *tensors)
        y = x.new_empty(len(x), len(weight), *shape.window.output(shape.size))
        train_passes.forward(
            shape, x, affine_of(Normaliser.of(tensors, rule)), None, shape.pack(weight), y
        )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *tensors = ctx.saved_tensors
        shape, link, grad_y = (
            ctx.shape,
            Normaliser.of(tensors, ctx.rule),
            train_passes.planes(grad_y),
        )
        given = (shape, x, affine_of(link), None, shape.pack(weight), grad_y)
        # no gates: the second value, what they would hear, is None
        grad_packed, _ = train_passes.grad_weight(*given)
        grad_x = torch.empty_like(x)
        sums = train_passes.grad_input(*given, None, grad_x)
        grad_norm = input_grad(link, x, grad_x, sums)
        return None, None, grad_x, shape.unpack(grad_packed), *grad_norm, None, None
