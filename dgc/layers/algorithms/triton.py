"""The layers by the Triton kernels, on a GPU: autograd functions that keep the raw input.

Which channels are on stands on the device from the gates to the products, the number of inactive
ones too, so nothing here depends on a number that the host would have to know. Legend: B samples,
G heads, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dgc.errors import ArgumentError
from dgc.kernels.gpu import passes
from dgc.kernels.gpu.passes import TritonAffine, TritonSelected, TritonWindow
from dgc.layers import gating
from dgc.layers.algorithms.per_head import conv_backward_numbers
from dgc.layers.norm import Normaliser, Rule, chain_of, through_pool


class TritonSetting(NamedTuple):
    rules: tuple[Rule, ...]
    window: TritonWindow


def check(x: Tensor, *parameters: Tensor) -> None:
    """Raise ArgumentError for numbers that the kernels do not know."""
    if x.dtype not in passes.FLOATS:
        raise ArgumentError(
            f"backend='triton': its kernels work in float32, bf16 and fp16, and the input is"
            f" {str(x.dtype).removeprefix('torch.')}: use backend='auto'"
        )
    for t in parameters:
        if t.dtype != torch.float32:
            raise ArgumentError(
                "backend='triton': its kernels want parameters in float32, and there is one in"
                f" {str(t.dtype).removeprefix('torch.')}: use backend='auto'"
            )


def run(
    rules: tuple[Rule, ...], numbers: tuple[int, ...], inactive: Tensor, x: Tensor, weight: Tensor,
    *rest: Tensor,
) -> Any:  # fmt: skip
    """A whole layer; `rest` as TritonLayer takes them. Raises ArgumentError for other numbers."""
    check(x, *rest)
    setting = TritonSetting(rules, TritonWindow(*numbers))
    return TritonLayer.apply(setting, x, weight, *rest[:3], inactive, *rest[3:])


def affine_of(link: Normaliser) -> TritonAffine:
    return passes.affine_of(link.weight, link.bias, link.mean, link.var, link.rule.eps)


def norm_backward(
    link: Normaliser, affine: TritonAffine, grad: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """From the gradient behind BatchNorm and ReLU (overwritten) to those of x, weight and bias."""
    grad = passes.planes(grad)
    found = _norm_grads(link, passes.norm_sums(grad, x, affine), x)
    passes.norm_backward(grad, x, affine, found, batch=link.rule.batch)
    return grad, found.weight, found.bias


def _norm_grads(link: Normaliser, partial: Tensor, x: Tensor) -> passes.TritonNormGrads:
    return passes.norm_grads(
        partial, link.weight, link.mean, link.var, link.rule.eps, x.numel() // x.shape[1],
        batch=link.rule.batch,
    )  # fmt: skip


class TritonComputed(NamedTuple):
    """What a forward comes to: the layer's output, the gates' L1 term, the gates that stay on; and
    what its backward wants besides: the pooled input, all gates, and the channels that are on.
    """

    y: Tensor
    l1: Tensor
    left: Tensor
    pooled: Tensor
    gates: Tensor
    counts: Tensor
    channels: Tensor

    @property
    def on(self) -> TritonSelected:
        return TritonSelected(self.left, self.counts, self.channels)


def computed(
    window: TritonWindow, affines: Sequence[TritonAffine], x: Tensor, weight: Tensor, fc1: Tensor,
    fc2: Tensor, fc2_bias: Tensor, inactive: Tensor,
) -> TritonComputed:  # fmt: skip
    """The layer, of an input whose samples are planes one after the other."""
    u = _last_input(x, affines)
    last = affines[-1] if affines else None
    pooled_BC = passes.pooled(u, last)
    # heads in front: one product for all of them
    h_GBS = gating.hidden(pooled_BC, fc1).transpose(0, 1)
    raw_GBC = torch.baddbmm(fc2_bias[:, None], h_GBS, fc2.transpose(1, 2))
    gates_BGC, on, sums = passes.select(raw_GBC, inactive)
    y = passes.forward(u, last, on, weight, window)
    l1 = sums.sum() / gates_BGC[:, 0].numel()
    return TritonComputed(y, l1, on.gates, pooled_BC, gates_BGC, on.counts, on.channels)


class TritonBack(NamedTuple):
    """What a backward is given: all but the gradients that arrive."""

    chain: tuple[Normaliser, ...]
    affines: Sequence[TritonAffine]
    window: TritonWindow
    x: Tensor
    weight: Tensor
    fc1: Tensor
    fc2: Tensor
    pooled: Tensor
    gates: Tensor
    on: TritonSelected

    def grads(self, grad_y: Tensor, grad_l1: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of x, weight, fc1, fc2 and fc2_bias; and of each norm's weight and bias, in order."""
        chain, affines, window, x, weight, fc1, fc2, pooled, gates, on = self
        u = _last_input(x, affines)
        last = affines[-1] if affines else None
        grad_y = passes.planes(grad_y)
        # a gate scales its channel, so what it is to hear falls out of the sums for the weights
        grad_weight, heard = passes.grad_weight(u, last, on, weight, grad_y, window)
        # the L1 term is of all gates; where the ReLU behind a gate gave 0, nothing passes
        grad_gates = (heard + grad_l1 / gates[:, 0].numel()) * (gates > 0)
        grad_pooled, *grad_fcs = gating.gates_backward(grad_gates, pooled, fc1, fc2)
        # each pixel had its share in the mean
        grad_pooled = grad_pooled / (x.shape[2] * x.shape[3])
        grad = torch.empty_like(u, memory_format=torch.contiguous_format)
        partial = passes.grad_input(u, last, on, weight, grad_y, grad_pooled, window, grad)
        # the kernel has applied the last BatchNorm's scale; in training the terms that come through
        # the batch's moments are missing, and need sums over all of it
        grad_norms: list[Tensor] = []
        if partial is not None:
            found = _norm_grads(chain[-1], partial, u)
            if chain[-1].rule.batch:
                passes.add_affine(grad, u, found.a, found.b)
            grad_norms = [found.weight, found.bias]
        if len(chain) > 1:
            grad, *own = norm_backward(chain[0], affines[0], grad, x)
            grad_norms = [*own, *grad_norms]
        return [grad, grad_weight.to(weight.dtype), *grad_fcs], grad_norms


class TritonLayer(torch.autograd.Function):
    """(x, weight, fc1, fc2, fc2_bias, inactive, four tensors a norm) -> (y, gate L1, gates)."""

    @staticmethod
    def forward(
        ctx: Any, setting: TritonSetting, x: Tensor, weight: Tensor, fc1: Tensor, fc2: Tensor,
        fc2_bias: Tensor, inactive: Tensor, *norms: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        x, weight = passes.planes(x), weight.contiguous()
        # a BatchNorm as scale and shift a channel: the last one is applied, with its ReLU, while
        # the kernels read u, so its output is never written
        affines = tuple(affine_of(link) for link in chain_of(norms, setting.rules))
        found = computed(setting.window, affines, x, weight, fc1, fc2, fc2_bias, inactive)
        ctx.setting = setting
        # x itself, not what the BatchNorms made of it: that is made again in backward
        ctx.save_for_backward(
            x, weight, fc1, fc2, found.pooled, found.gates, *found.on,
            *(t for a in affines for t in a), *norms,
        )  # fmt: skip
        ctx.mark_non_differentiable(found.left)
        return found.y, found.l1, found.left

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_l1: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, fc1, fc2, pooled, gates, *rest = ctx.saved_tensors
        rules, window = ctx.setting
        on, rest = TritonSelected(*rest[:3]), rest[3:]
        affines = tuple(TritonAffine(*rest[3 * i : 3 * i + 3]) for i in range(len(rules)))
        chain = chain_of(rest[3 * len(rules) :], rules)
        back = TritonBack(chain, affines, window, x, weight, fc1, fc2, pooled, gates, on)
        grads, norms = back.grads(grad_y, grad_l1)
        # of the moments of a batch there is no gradient: it went through x
        pairs = zip(norms[::2], norms[1::2], strict=True)
        return None, *grads, None, *(g for pair in pairs for g in (*pair, None, None))


def _last_input(x: Tensor, affines: Sequence[TritonAffine]) -> Tensor:
    """What the last of at most two BatchNorms gets."""
    return passes.activate(x, affines[0]) if len(affines) > 1 else x


# --- the static parts -----------------------------------------------------------------------------


class TritonStatic(torch.autograd.Function):
    """conv(relu(norm(x))): groups of few channels by our kernels,
    others by PyTorch's convolution.
    """

    @staticmethod
    def forward(
        ctx: Any, rule: Rule, numbers: tuple[Any, ...], x: Tensor, weight: Tensor, *tensors: Tensor
    ) -> Tensor:
        x, weight = passes.planes(x), weight.contiguous()
        affine = affine_of(Normaliser.of(tensors, rule))
        ctx.rule, ctx.numbers = rule, numbers
        ctx.save_for_backward(x, weight, *affine, *tensors)
        window = narrow_window(weight, numbers)
        if window is not None:
            return passes.grouped_forward(x, affine, weight, window)
        return F.conv2d(passes.activate(x, affine), weight, None, *numbers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *rest = ctx.saved_tensors
        affine, link = TritonAffine(*rest[:3]), Normaliser.of(rest[3:], ctx.rule)
        window = narrow_window(weight, ctx.numbers)
        grad_y = passes.planes(grad_y)
        if window is not None:
            grad_weight = passes.grouped_weight(x, affine, weight, grad_y, window).to(weight.dtype)
            grad = torch.empty_like(x, memory_format=torch.contiguous_format)
            partial = passes.grouped_input(x, affine, weight, grad_y, window, grad)
            found = _norm_grads(link, partial, x)
            if link.rule.batch:
                passes.add_affine(grad, x, found.a, found.b)
            grads = grad, found.weight, found.bias
        else:
            a = passes.activate(x, affine)
            grad_a, grad_weight = conv_backward_numbers(grad_y, a, weight, ctx.numbers)
            grads = norm_backward(link, affine, grad_a, x)
        return None, None, grads[0], grad_weight, *grads[1:], None, None


def narrow_window(weight: Tensor, numbers: tuple[Any, ...]) -> TritonWindow | None:
    """The window of a convolution that the kernels for narrow groups compute; None: not theirs."""
    (stride, other), (padding, below), (dilation, again), groups = numbers
    square = weight.shape[2] == weight.shape[3] and stride == other and padding == below
    if not (square and dilation == again and groups > 1 and passes.is_narrow(weight, groups)):
        return None
    return TritonWindow(groups, weight.shape[2], stride, padding, dilation)


class TritonPool(torch.autograd.Function):
    """pool(relu(norm(x)))."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, pool: nn.Module, x: Tensor, *tensors: Tensor) -> Tensor:
        x = passes.planes(x)
        affine = affine_of(Normaliser.of(tensors, rule))
        ctx.rule, ctx.pool = rule, pool
        ctx.save_for_backward(x, *affine, *tensors)
        y: Tensor = pool(passes.activate(x, affine))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        affine = TritonAffine(*rest[:3])
        with torch.enable_grad():
            a = passes.activate(x, affine).requires_grad_()
            pooled = ctx.pool(a)
        grad_a = through_pool(pooled, a, grad).clone(memory_format=torch.contiguous_format)
        grads = norm_backward(Normaliser.of(rest[3:], ctx.rule), affine, grad_a, x)
        return None, None, *grads, None, None
