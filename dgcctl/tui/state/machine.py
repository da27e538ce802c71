"""What a run's processes used while the dashboard looked on: CPU, memory, GPU, as metrics that have
charts like any other. What the training itself wrote down (`perf.cpu`, `perf.rss`) reaches back to
its start.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dgcctl.core.runs.listing import Run
from dgcctl.tui.state.feed import GrowingArray, Points
from dgcctl.tui.state.processes import Sample

KIND = "machine."
TITLES: Mapping[str, str] = {
    "machine.cpu": "CPU % of a core, now", "machine.memory": "memory MiB, now",
    "machine.gpu": "GPU %, now", "machine.host_cpu": "CPU % of the host",
    "machine.host_memory": "memory % of the host",
}  # fmt: skip
# the charts of the key for them: what the training wrote down, then what is seen from here
CHARTS = (
    "perf.cpu", "perf.rss", "perf.gpu_memory", "perf.data_ms",
    "machine.cpu", "machine.memory", "machine.gpu", "machine.host_cpu", "machine.host_memory",
)  # fmt: skip
_NONE = Points(np.empty(0), np.empty(0), np.empty(0))


class Machine:
    """Columns that grow with every look at the processes of one run."""

    def __init__(self) -> None:
        self._step, self._seconds = GrowingArray(), GrowingArray()
        self._values = {name: GrowingArray() for name in TITLES}
        self._kept: dict[str, Points] = {}

    def add(self, sample: Sample, run: Run) -> None:
        """Note a look, at the place where the run last said that it was."""
        status = run.status
        # a resume goes back in steps; curves do not
        for column, place in (
            (self._step, float(status.step)),
            (self._seconds, max(0.0, status.heartbeat - status.started)),
        ):
            column.extend([max(place, float(column.view[-1])) if column.size else place])
        looked = (
            sample.cpu,
            sample.rss / 2**20,
            np.nan if sample.gpu is None else sample.gpu,
            sample.host_cpu,
            sample.host_memory,
        )
        for column, value in zip(self._values.values(), looked, strict=True):
            column.extend([value])
        self._kept = {}

    def points(self, name: str) -> Points:
        """The points of one of `TITLES`; the same object until there are others."""
        if name not in self._kept:
            values = self._values[name].view.copy() if name in self._values else np.empty(0)
            seen = bool(np.isfinite(values).any())  # without a GPU there is nothing to draw
            self._kept[name] = (
                Points(self._step.view.copy(), self._seconds.view.copy(), values) if seen else _NONE
            )
        return self._kept[name]

    def names(self) -> list[str]:
        return [name for name in TITLES if len(self.points(name))]
