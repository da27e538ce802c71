"""What one convolution of a network is made of,
before anything is said about how it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Conv:
    """A convolution, static (`fc1` is None) or dynamic; `groups` are its groups or heads."""

    weight: Tensor  # (O, C / groups, kh, kw), dynamic (O, C, kh, kw)
    bias: Tensor | None
    stride: int
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    fc1: Tensor | None = None
    fc2: Tensor | None = None
    fc2_bias: Tensor | None = None
    n_inactive: int = 0
    scale: Tensor | None = None  # BatchNorm and ReLU inside a dynamic convolution
    shift: Tensor | None = None

    @property
    def taps(self) -> int:
        return int(self.weight.shape[2] * self.weight.shape[3])

    @property
    def dynamic(self) -> bool:
        return self.fc1 is not None
