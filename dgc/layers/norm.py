"""BatchNorm + ReLU in pieces, so that its output need not be kept: it is made again from the raw
input in backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgc.kernels.cpu import train_passes
from dgc.layers import support


class Moments(NamedTuple):
    """Mean and biased variance of each channel over (B, H, W)."""

    mean: Tensor
    var: Tensor


class Rule(NamedTuple):
    """How a BatchNorm works on its tensors."""

    eps: float
    batch: bool  # mean and var are those of this batch, so gradients flow through them

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Rule:
        # without running statistics nn.BatchNorm2d uses those of the batch in evaluation too
        return cls(norm.eps, norm.training or norm.running_mean is None)


class Normaliser(NamedTuple):
    """One BatchNorm as numbers: y = relu((x - mean) / sqrt(var + eps) * weight + bias)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    rule: Rule

    @classmethod
    def of(cls, tensors: Sequence[Tensor], rule: Rule) -> Normaliser:
        """From its four tensors, in the order of `tensors`."""
        weight, bias, mean, var = tensors
        return cls(weight, bias, mean, var, rule)

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # `rule` is no tensor: it goes beside them through autograd's context. (Where a layer is
        # traced, `[:4]`: TorchDynamo of PyTorch 2.10 reads no property of a named tuple.)
        return self[:4]

    def activate(self, x_BCHW: Tensor) -> Tensor:
        """relu(BN(x)), one copy."""
        return F.batch_norm(
            # as in evaluation, with the batch's moments in
            # the place of the running ones: nothing moves on
            x_BCHW,
            self.mean,
            self.var,
            self.weight,
            self.bias,
            False,
            0.0,
            self.rule.eps,
        ).relu_()

    def backward(self, grad_BCHW: Tensor, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients for x, weight and bias from that of BN(x), before the ReLU."""
        # PyTorch's own backward, given the statistics that were kept; `rule` in its order
        invstd = torch.rsqrt(self.var + self.rule.eps)
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad_BCHW,
            x_BCHW,
            self.weight,
            self.mean,
            self.var,
            self.mean,
            invstd,
            *reversed(self.rule),
            [True] * 3,
        )
        return grad_x, grad_weight, grad_bias


def relu_backward_(grad: Tensor, a: Tensor) -> Tensor:
    """In place: zero where a = relu(..) is not above zero."""
    torch.ops.aten.threshold_backward.grad_input(grad, a, 0, grad_input=grad)
    return grad


# --- several BatchNorms one after the other ---


def chain_of(tensors: Sequence[Tensor], rules: Sequence[Rule]) -> tuple[Normaliser, ...]:
    """Four tensors a link."""
    return tuple(Normaliser.of(tensors[4 * i : 4 * i + 4], rule) for i, rule in enumerate(rules))


def activations(chain: tuple[Normaliser, ...], x_BCHW: Tensor) -> list[Tensor]:
    """The raw input and the output of every BatchNorm-ReLU after it."""
    values = [x_BCHW]
    for link in chain:
        values.append(link.activate(values[-1]))
    return values


def chain_backward(
    chain: tuple[Normaliser, ...], grad: Tensor, inputs: list[Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """From the gradient before the last ReLU to that
    of the raw input, and those of weights and biases.

    `inputs`: the raw input and what follows; one more than the chain has links where `grad` is
    behind its last ReLU.
    """
    grad_norms: list[Tensor | None] = []
    for i in reversed(range(len(chain))):
        # a link's ReLU lies behind it; for the last one the caller may have done it already
        if i + 1 < len(inputs):
            grad = relu_backward_(grad, inputs[i + 1])
        grad, grad_weight, grad_bias = chain[i].backward(grad, inputs[i])
        # in front, since the walk is backwards; mean and variance have no gradient of their own
        grad_norms[:0] = [grad_weight, grad_bias, None, None]
    return grad, grad_norms


def through_pool(y: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of a leaf x from that of y;
    of a single step by that step: torch.autograd.grad would load sympy.
    """
    step = y.grad_fn
    # a pooling that hands its input on (nn.Identity) leaves no step
    if step is None:
        return grad
    if len(step.next_functions) == 1 and getattr(step.next_functions[0][0], "variable", None) is x:
        found: Tensor = step(grad)  # type: ignore[operator]
        return found
    return torch.autograd.grad(y, x, grad)[0]


# --- moments of a batch ---


@torch.no_grad()
def moments(
    x_BCHW: Tensor, dtype: torch.dtype, *, kernels: bool = True, triton: bool = False
) -> Moments:
    """Of this batch, in `dtype`; by the C++ kernels (or, if asked, the GPU's) where they can.

    On the CPU in two passes, which is as exact as torch's and takes half its time.
    """
    if support.triton_for(x_BCHW, triton=triton) and dtype == torch.float32:
        from dgc.kernels.gpu import passes  # Triton is loaded where it is used

        return Moments(*passes.moments(passes.planes(x_BCHW)))
    if x_BCHW.is_cuda:
        # in one launch: two passes pay on the CPU alone
        var, mean = torch.var_mean(x_BCHW.to(dtype), (0, 2, 3), correction=0)
        return Moments(mean, var)
    if support.moments_native(x_BCHW, dtype, kernels=kernels):
        return batch_moments(train_passes.moments(x_BCHW), x_BCHW.shape[2] * x_BCHW.shape[3])
    # around the mean: the difference of two sums of squares loses digits where the mean is large
    mean_C = x_BCHW.mean((0, 2, 3), dtype=dtype)
    centred_BCHW = x_BCHW - mean_C[:, None, None]
    return Moments(
        mean_C, torch.linalg.vector_norm(centred_BCHW, dim=(2, 3)).square().sum(0) / _count(x_BCHW)
    )


def batch_moments(planes: train_passes.PlaneMoments, pixels: int) -> Moments:
    """Mean and biased variance over the batch, from those of its planes (B, C) of `pixels` each."""
    # the variance of all = that within the planes + that of their means; in double
    means = planes.mean.double()
    mean = means.mean(0)
    var = (planes.square.double().sum(0) + pixels * (means - mean).square().sum(0)) / (
        len(means) * pixels
    )
    return Moments(mean.float(), var.float())


def _count(x_BCHW: Tensor) -> int:
    return x_BCHW.numel() // x_BCHW.shape[1]


def extend(
    input_moments: Moments, fresh_BCHW: Tensor, *, kernels: bool = True, triton: bool = False
) -> Moments:
    """Moments of a concatenation, from those of its front and the channels that came behind it."""
    fresh = moments(fresh_BCHW, input_moments.mean.dtype, kernels=kernels, triton=triton)
    return Moments(
        torch.cat([input_moments.mean, fresh.mean]), torch.cat([input_moments.var, fresh.var])
    )


def normaliser(
    norm: nn.BatchNorm2d,
    x_BCHW: Tensor,
    input_moments: Moments | None = None,
    *,
    kernels: bool = True,
    triton: bool = False,
) -> Normaliser:
    """What `norm` does to this batch;
    in training its running statistics move on, as nn.BatchNorm2d's do.

    `input_moments`: the batch's moments where the caller has them already.
    """
    affine, rule = (norm.weight, norm.bias), Rule.of(norm)
    if not rule.batch:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return Normaliser(*affine, norm.running_mean, norm.running_var, rule)
    found = input_moments or moments(x_BCHW, norm.weight.dtype, kernels=kernels, triton=triton)
    if norm.training and norm.running_mean is not None:
        move_on(norm, found, _count(x_BCHW))
    return Normaliser(*affine, found.mean, found.var, rule)


@torch.no_grad()
def move_on(norm: nn.BatchNorm2d, found: Moments, count: int) -> None:
    """The running statistics, after a batch with these moments of `count` values a channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    # the order of nn.BatchNorm2d: what is refused below has moved the mean, as there
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(found.mean, norm.momentum)
    if count == 1:  # in PyTorch's words, since PyTorch's own layers say so too
        raise ValueError("Expected more than 1 value per channel when training, got 1")
    norm.running_var.lerp_(found.var * (count / (count - 1)), norm.momentum)
