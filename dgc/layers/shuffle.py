"""The order of output channels: channel j*G + i is the j-th channel of head i (paper, section
3.3).
"""

from __future__ import annotations

from torch import Tensor


def interleave(y_BGJHW: Tensor) -> Tensor:
    """(B, G, J, H, W) -> (B, J*G, H, W), output channel j*G + i."""
    b, g, j, h, w = y_BGJHW.shape
    return y_BGJHW.transpose(1, 2).reshape(b, g * j, h, w)


def shuffle(y_BOHW: Tensor, groups: int) -> Tensor:
    """Channels that come group after group, interleaved: (B, G*J, H, W) -> (B, J*G, H, W)."""
    b, o, h, w = y_BOHW.shape
    return interleave(y_BOHW.reshape(b, groups, o // groups, h, w))


def by_head(y_BOHW: Tensor, heads: int) -> Tensor:
    """The inverse of `interleave` as a view where possible: (B, J*G, H, W) -> (B, G, J, H, W)."""
    b, o, h, w = y_BOHW.shape
    return y_BOHW.reshape(b, o // heads, heads, h, w).transpose(1, 2)
