"""Gates: how much each head wants each input channel (paper, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


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
