"""BatchNorm and ReLU on a GPU, where each call of PyTorch is a launch: the whole of BatchNorm by
one (moments, running statistics, output), its backward by another.

On the CPU (dgc.layers.norm) it is taken apart instead, so that moments are taken where the values
are in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgc.layers.norm import Rule


class BatchLink(NamedTuple):
    """What the backward of a BatchNorm wants: mean and 1 / sqrt(var + eps) of its batch; or, where
    it uses them, the running mean and variance.
    """

    rule: Rule  # in front, so that the tensors, which autograd keeps, are one slice
    weight: Tensor
    mean: Tensor
    spread: Tensor

    def backward(self, grad_BCHW: Tensor, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients for x, weight and bias from that of BN(x), before the ReLU."""
        own = (self.mean, self.spread)
        running, batch = ((None, None), own) if self.rule.batch else (own, (None, None))
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
            grad_BCHW, x_BCHW, self.weight, *running, *batch, *reversed(self.rule), [True] * 3
        )
        return found


def first_pass(norm: nn.BatchNorm2d, x_BCHW: Tensor) -> tuple[Tensor, BatchLink]:
    """relu(norm(x)), and what its backward wants; in training the running statistics move on."""
    rule = Rule.of(norm)
    if norm.training and norm.num_batches_tracked is not None:
        assert norm.momentum is not None
        norm.num_batches_tracked.add_(1)
    y, mean, spread = torch.native_batch_norm(
        x_BCHW, norm.weight, norm.bias, norm.running_mean, norm.running_var, rule.batch,
        norm.momentum or 0.0, norm.eps,
    )  # fmt: skip
    if not rule.batch:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, spread = norm.running_mean, norm.running_var
    return y.relu_(), BatchLink(rule, norm.weight, mean, spread)
