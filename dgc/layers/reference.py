"""The oracle: every head convolves all channels, most of them multiplied by zero. Slow and plainly
right.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dgc.layers.shuffle import shuffle


def masked_conv2d(
    x_BCHW: Tensor, weight_OCkk: Tensor, gates_BGC: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """y_i = conv(x * g_i, w_i) for each head i, then the shuffle. Returns (B, O, H', W')."""
    heads = gates_BGC.shape[1]
    scaled_BGCHW = x_BCHW[:, None] * gates_BGC[..., None, None].to(x_BCHW.dtype)
    y_BOHW = F.conv2d(
        scaled_BGCHW.flatten(1, 2), weight_OCkk, None, stride, padding, dilation, heads
    )
    return shuffle(y_BOHW, heads)
