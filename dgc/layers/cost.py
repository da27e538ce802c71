"""What one layer costs in multiply-accumulates, counted three ways that are never mixed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """Per image. `dense`: the plain layer in its place. `promised`: the authors' counter at the
    final pruning. `executed`: what gathered or native multiplies at the present number of
    inactive channels, gates included.
    """

    dense: float
    promised: float
    executed: float

    @classmethod
    def same(cls, value: float) -> Cost:
        """A static layer: all three agree."""
        return cls(value, value, value)


def conv_macs(weight_shape: Sequence[int], output_shape: Sequence[int]) -> int:
    """Products of a convolution without bias:
    outputs (O, H, W) times weights per output (of a group).
    """
    return math.prod(output_shape[-3:]) * math.prod(weight_shape[1:])
