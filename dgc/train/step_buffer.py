"""Metrics of the last few steps: they stay on the device until the buffer is read, once, for all
ranks together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgc.run import metrics
from dgc.run.metrics import StepInfo
from dgc.train.ranks import Ranks
from dgc.train.step import column_names


class StepBuffer:
    """One row of columns a step."""

    def __init__(self, size: int, ranks: Ranks) -> None:
        self._names = column_names()
        # float64: counts stay whole numbers, and sums over ranks keep their digits
        self._rows = torch.zeros(size, len(self._names), dtype=torch.float64, device=ranks.device)
        self._infos: list[StepInfo] = []
        self._ranks = ranks

    def __len__(self) -> int:
        return len(self._infos)

    @property
    def full(self) -> bool:
        return len(self._infos) == len(self._rows)

    def add(self, info: StepInfo, row: Tensor) -> None:
        self._rows[len(self._infos)].copy_(row)
        self._infos.append(info)

    def read(self) -> list[tuple[StepInfo, dict[str, Any]]]:
        """All rows, summed over ranks, as (what was known,
        every metric by name); empties the buffer.

        The only place where training reads the device.
        """
        # a copy is summed, so that what is left in the buffer is this rank's own
        values = self._ranks.sum_(self._rows[: len(self._infos)].clone()).tolist()
        rows = []
        for info, row in zip(self._infos, values, strict=True):
            columns = dict(zip(self._names, row, strict=True))
            rows.append((info, {m.name: m.of(info, columns) for m in metrics.STEP_METRICS}))
        self._infos = []
        return rows


def logged_row(info: StepInfo, values: dict[str, Any]) -> dict[str, Any]:
    """The STEP event's fields."""
    place = {"step": info.step, "epoch": info.epoch}
    return place | {metric.name: values[metric.name] for metric in metrics.logged()}
