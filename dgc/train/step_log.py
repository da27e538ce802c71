"""Metrics of a block of steps: they stay on the device until the block is read, once, for all ranks
together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgc.train.ranks import Ranks
from dgc.train.step import COLUMNS


@dataclass(frozen=True)
class Known:
    """What the host knows of a step before the device has computed it."""

    step: int
    epoch: int
    batch: int
    progress: float
    lr: float
    inactive: int
    samples: int


class Block:
    """The rows of the last few steps."""

    def __init__(self, size: int, ranks: Ranks, gate_weight: float) -> None:
        self._rows = torch.zeros(size, len(COLUMNS), dtype=torch.float64, device=ranks.device)
        self._known: list[Known] = []
        self._ranks = ranks
        self._gate_weight = gate_weight

    def __len__(self) -> int:
        return len(self._known)

    @property
    def full(self) -> bool:
        return len(self._known) == len(self._rows)

    def add(self, known: Known, row: Tensor) -> None:
        self._rows[len(self._known)].copy_(row)
        self._known.append(known)

    def read(self) -> list[tuple[Known, dict[str, Any]]]:
        """All rows, summed over ranks, as (what was known, the STEP event's fields); empties the
        block.

        The only place where training reads the device.
        """
        values = self._ranks.sum_(self._rows[: len(self._known)].clone()).tolist()
        rows = [
            (known, self._fields(known, dict(zip(COLUMNS, row, strict=True))))
            for known, row in zip(self._known, values, strict=True)
        ]
        self._known = []
        return rows

    def _fields(self, known: Known, value: dict[str, float]) -> dict[str, Any]:
        return {
            "step": known.step,
            "epoch": known.epoch,
            "progress": known.progress,
            "lr": known.lr,
            "loss": value["cross_entropy"] + self._gate_weight * value["gate_l1"],
            "cross_entropy": value["cross_entropy"],
            "gate_l1": value["gate_l1"],
            "error": 100 * value["wrong"] / known.samples,
            "inactive": known.inactive,
            "bad": value["bad"] > 0,
            "grad_norm": value["grad_norm"],
            "wrong": value["wrong"],
        }
