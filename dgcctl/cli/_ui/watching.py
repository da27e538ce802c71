"""What a training that is watched from the command line shows: its live line,
and each evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgc.run.paths import RunDir
from dgcctl.cli._ui import summary
from dgcctl.cli._ui.progress_line import LiveLine
from dgcctl.core.runs.tail import Progress, Tail


class Watch:
    """Follows a run's events. `recipe` is the run's, with dotted keys; `resumed`: what the log
    holds already was shown before.
    """

    def __init__(self, run: RunDir, recipe: Mapping[str, Any], *, resumed: bool = False) -> None:
        self._tail, self._progress = Tail(run), Progress()
        if resumed:
            self._progress.take(self._tail.poll().events)
            self._progress.images_per_s = self._progress.eta_s = None
        gate_factor = recipe.get("model.gate_factor")
        dynamic = recipe.get("model.form", "dgc") == "dgc" and isinstance(gate_factor, int | float)
        top5 = int(recipe.get("model.num_classes") or 0) > summary.TOP5_MEANS_NOTHING
        self._line = LiveLine(gate_factor if dynamic else None, top5=top5)

    @property
    def began(self) -> bool:
        """Whether the run has said anything yet."""
        return self._progress.seen

    def look(self) -> None:
        """Show what is new."""
        batch = self._tail.poll()
        self._progress.take(batch.events)
        self._line.show(self._progress, batch.events)

    def clear(self) -> None:
        """Take the live line away, so that ordinary lines can follow."""
        self._line.clear()
