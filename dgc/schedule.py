"""Pure functions of progress p in [0, 1): learning rate and number of inactive channels. No torch,
no state.

Source: released code (its `adjust_learning_rate` and pruning schedule) and the paper's recipe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

PRUNING_START = 1 / 12
PRUNING_END = 3 / 4


def progress(epoch: int, batch: int, epochs: int, batches: int) -> float:
    """Share of the training done before this batch:
    (epoch * batches + batch) / (epochs * batches), in [0, 1).
    """
    return (epoch * batches + batch) / (epochs * batches)


def inactive_channels(p: float, in_channels: int, gate_factor: float) -> int:
    """Number n of inactive input channels of each head at progress p.

    `gate_factor` is the share of channels that is kept at the end (1 - pruning rate). Rounding is
    Python's.
    """
    prunable = in_channels * (1 - gate_factor)
    if p <= PRUNING_START:
        return 0
    if p < PRUNING_END:
        return round(prunable * 1.5 * (p - PRUNING_START))
    return round(prunable)


def cosine(p: float, lr: float) -> float:
    """Learning rate at progress p: from `lr` to 0 along half a cosine."""
    return 0.5 * lr * (1 + math.cos(math.pi * p))


def multistep(epoch: int, lr: float, milestones: Sequence[int], gamma: float = 0.1) -> float:
    """Learning rate in `epoch`: times gamma at each milestone (a count of finished epochs)."""
    return lr * gamma ** sum(epoch >= milestone for milestone in milestones)


def warmed_up(step: int, steps: int, start: float, lr: float) -> float:
    """Learning rate of step number `step` (from 0) of a warm-up of `steps`: in equal steps from
    `start`, which no step has, to `lr`, which the last one has.
    """
    return start + (lr - start) * (step + 1) / steps
