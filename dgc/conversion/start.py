"""A dynamic layer that computes what a convolution computes, and knows which channels to drop
first.

The gates start apart from each other: a channel's gate is 1 + 0.1 * (rank - 1/2), by the size of
its weights in that head, and the weights are divided by it. Equal gates would be switched off all
at once, because every gate at the threshold goes. The gates do not depend on the image yet (fc2 is
0); training changes that, because the gradient of fc2 is not 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dgc.layers import DynamicGroupConv2d, gating

WEIGHT_KEY = "heads_weight"
SPREAD = 0.1  # between the gates of the weakest and the strongest channel
GATE_SHARE = 0.25  # of a layer's weights that its gates may have


def narrowed(conv: nn.Conv2d, heads: int, squeeze_rate: int) -> int:
    """The squeeze rate with which the gates stay within a quarter
    of the layer's weights, where one hidden unit does.
    """
    channels = conv.in_channels
    # one head's gates are 2 * width * channels weights and channels biases
    widest = max(1, int((GATE_SHARE * conv.weight.numel() / (heads * channels) - 1) // 2))
    width = gating.squeeze_width(channels, squeeze_rate)
    if width <= widest:
        return squeeze_rate
    rate = channels // (widest + 1) + 1
    return 2 * rate if channels < 80 else rate  # small layers halve the rate, see squeeze_width


def blank(conv: nn.Conv2d, heads: int, gate_factor: float, squeeze_rate: int) -> DynamicGroupConv2d:
    """A layer of the same geometry, with weights of its own.
    Raises ArgumentError for numbers that cannot be.
    """
    assert not isinstance(conv.padding, str)
    layer = DynamicGroupConv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], conv.padding[0],
        conv.dilation[0], heads, squeeze_rate, gate_factor, norm=False, bias=conv.bias is not None,
    )  # fmt: skip
    layer.weight_key = WEIGHT_KEY
    return layer


def at_home(layer: DynamicGroupConv2d, conv: nn.Conv2d) -> DynamicGroupConv2d:
    """The layer on the convolution's device, in its precision and mode."""
    return layer.to(conv.weight.device, conv.weight.dtype).train(conv.training)


@torch.no_grad()
def take_over(layer: DynamicGroupConv2d, conv: nn.Conv2d) -> None:
    """Let `layer` compute what `conv` computes."""
    gates_GC = spread(conv.weight, layer.heads)
    rows = by_heads(conv.weight, layer.heads) / gates_GC[:, None, :, None, None]
    layer.weight.copy_(rows.flatten(0, 1))
    layer.weight.requires_grad_(conv.weight.requires_grad)
    layer.fc2.zero_()
    layer.fc2_bias.copy_(gates_GC)
    if layer.bias is not None and conv.bias is not None:
        layer.bias.copy_(conv.bias)
        layer.bias.requires_grad_(conv.bias.requires_grad)


def by_heads(weight_OCkk: Tensor, heads: int) -> Tensor:
    """(G, J, C, k, k): output channel j*G + i is the j-th of head i."""
    rows_JG = weight_OCkk.detach().view(-1, heads, *weight_OCkk.shape[1:])
    return rows_JG.transpose(0, 1)


def spread(weight_OCkk: Tensor, heads: int) -> Tensor:
    """Gates (G, C), no two of a head equal: the larger a channel's weights, the larger its gate."""
    sizes_GC = by_heads(weight_OCkk, heads).double().square().sum((1, 3, 4))
    rank_GC = sizes_GC.argsort(dim=1, stable=True).argsort(dim=1).to(weight_OCkk.dtype)
    return 1 + SPREAD * (rank_GC / max(1, weight_OCkk.shape[1] - 1) - 0.5)
