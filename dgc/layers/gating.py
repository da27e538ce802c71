"""Gates: how much each head wants each input channel (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def squeeze_width(in_channels: int, squeeze_rate: int) -> int:
    """Hidden width C // d of the gate network; the released code halves d below 80 channels."""
    rate = squeeze_rate // 2 if in_channels < 80 else squeeze_rate
    return max(1, in_channels // max(1, rate))


def hidden(pooled_BC: Tensor, fc1_GSC: Tensor) -> Tensor:
    """ReLU(W1 p) of every head: (B, G, S)."""
    g, s, c = fc1_GSC.shape
    return torch.relu(pooled_BC @ fc1_GSC.view(g * s, c).t()).view(-1, g, s)


def gates(pooled_BC: Tensor, fc1_GSC: Tensor, fc2_GCS: Tensor, fc2_bias_GC: Tensor) -> Tensor:
    """g_i = ReLU(W2_i ReLU(W1_i p) + b_i) for every head,
    before any channel is switched off: (B, G, C).
    """
    # heads in front, for one batched product over all of them
    h_GBS = hidden(pooled_BC, fc1_GSC).transpose(0, 1)
    g_GBC = torch.baddbmm(fc2_bias_GC[:, None], h_GBS, fc2_GCS.transpose(1, 2))
    return torch.relu(g_GBC).transpose(0, 1).contiguous()


def gate_l1(gates_BGC: Tensor) -> Tensor:
    """What a layer adds to the loss, a scalar: the sum over heads of the mean of all gates, also of
    those that are switched off next. (Triton's kernels sum it themselves.)
    """
    return gates_BGC.mean((0, 2)).sum()


def gates_backward(
    grad_BGC: Tensor, pooled_BC: Tensor, fc1_GSC: Tensor, fc2_GCS: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients for the pooled input, fc1, fc2 and fc2_bias;
    grad_BGC is that before the outer ReLU.
    """
    g, s, c = fc1_GSC.shape
    # made again rather than kept: it is small, and two products of it are needed
    h_BGS = hidden(pooled_BC, fc1_GSC)
    grad_GBC = grad_BGC.transpose(0, 1)
    grad_fc2 = torch.bmm(grad_GBC.transpose(1, 2), h_BGS.transpose(0, 1))
    # the hidden ReLU passes nothing where it gave 0, as PyTorch's
    grad_h = torch.bmm(grad_GBC, fc2_GCS).transpose(0, 1) * (h_BGS > 0)
    grad_BN = grad_h.reshape(-1, g * s)
    grad_fc1 = (grad_BN.t() @ pooled_BC).view(g, s, c)
    return grad_BN @ fc1_GSC.view(g * s, c), grad_fc1, grad_fc2, grad_BGC.sum(0)


# --- on a GPU, where each call is a launch: heads in front throughout, and the hidden layer is kept


def gates_by_head(
    pooled_BC: Tensor, fc1_GSC: Tensor, fc2_GCS: Tensor, fc2_bias_GC: Tensor
) -> tuple[Tensor, Tensor]:
    """The hidden layer (B, G*S), and `gates` as (G, B, C)."""
    g, s, c = fc1_GSC.shape
    hidden_BN = (pooled_BC @ fc1_GSC.view(g * s, c).t()).relu_()
    h_GBS = hidden_BN.view(-1, g, s).transpose(0, 1)
    return hidden_BN, torch.baddbmm(fc2_bias_GC[:, None], h_GBS, fc2_GCS.transpose(1, 2)).relu_()


def heard(grad_GBC: Tensor, grad_l1: Tensor | None, gates_GBC: Tensor, on_GBC: Tensor) -> Tensor:
    """The gradient of the gates before their ReLU: those that are on hear from the convolution, all
    above 0 from the L1 term.
    """
    heard_GBC = _through_relu(grad_GBC, on_GBC)
    # what is on is above 0
    return heard_GBC if grad_l1 is None else _through_relu(heard_GBC.add_(grad_l1), gates_GBC)


def gates_by_head_backward(
    grad_GBC: Tensor, pooled_BC: Tensor, fc1_GSC: Tensor, fc2_GCS: Tensor, hidden_BN: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients for the pooled input, fc1, fc2 and fc2_bias, from `heard`."""
    g, s, c = fc1_GSC.shape
    h_BGS = hidden_BN.view(-1, g, s)
    grad_fc2 = torch.bmm(grad_GBC.transpose(1, 2), h_BGS.transpose(0, 1))
    # written sample by sample, which the two products below read as one matrix
    grad_BGS = torch.empty_like(h_BGS)
    torch.bmm(grad_GBC, fc2_GCS, out=grad_BGS.transpose(0, 1))
    grad_BN = _through_relu(grad_BGS.view_as(hidden_BN), hidden_BN)
    grad_fc1 = (grad_BN.t() @ pooled_BC).view(g, s, c)
    return grad_BN @ fc1_GSC.view(g * s, c), grad_fc1, grad_fc2, grad_GBC.sum(1)


def _through_relu(grad: Tensor, y: Tensor) -> Tensor:
    """Zero where y = relu(..) is not above zero."""
    found: Tensor = torch.ops.aten.threshold_backward(grad, y, 0)
    return found


def gate_l1_of_all(gates_GBC: Sequence[Tensor]) -> Tensor:
    """The sum of `gate_l1` over layers, in as few launches as one layer's."""
    found: Tensor = _L1OfAll.apply(*gates_GBC)
    return found


class _L1OfAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *gates_GBC: Tensor) -> Tensor:
        ctx.shapes = [t.shape for t in gates_GBC]
        ctx.shares = [1 / (b * c) for _, b, c in ctx.shapes]
        # none is below zero, so a sum is a norm
        terms = torch._foreach_norm(gates_GBC, 1)
        torch._foreach_mul_(terms, ctx.shares)
        return torch.stack(terms).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        grads = torch._foreach_mul([grad] * len(ctx.shares), ctx.shares)
        return tuple(t.expand(shape) for t, shape in zip(grads, ctx.shapes, strict=True))
