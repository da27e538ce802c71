"""Between two steps: has anybody asked to stop or to save, and is a checkpoint due? All ranks get
the same answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from dgc.recipe.schema import CheckpointSection
from dgc.run.paths import RunDir
from dgc.train.ranks import Agreement, Ranks
from dgc.train.signals import Signals, Stop

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Request:
    stop: Stop = Stop.NO
    save: bool = False


class Control:
    """Merges signals, the files control/stop and control/checkpoint,
    and the clock of the first rank.
    """

    def __init__(
        self, run: RunDir, ranks: Ranks, signals: Signals, recipe: CheckpointSection
    ) -> None:
        self._run, self._ranks, self._signals, self._recipe = run, ranks, signals, recipe
        # two numbers: why to stop, and whether to save
        self._agreement = Agreement(ranks, 2)
        self._saved = time.monotonic()
        self._polled = 0.0
        self._asked = Request()
        self._stale = False  # the answer in flight was asked for before the last save

    def poll(self) -> Request:
        """What the ranks agree on. With several ranks an answer
        is one step old, so that nobody waits for it.
        """
        # the first rank alone sees files and clock; signals may reach any of them
        self._look()
        # the weightier reason wins: a signal says more than a file
        wanted = [max(self._signals.stop, self._asked.stop), int(self._asked.save)]
        stop, save = self._agreement.exchange(wanted)
        # the answer to a save that was asked for before the last save is met already
        fresh, self._stale = not self._stale, False
        return Request(Stop(stop), bool(save) and fresh)

    def due(self, step: int) -> bool:
        """Whether the recipe saves at this step whatever the clock says (the same on all ranks)."""
        return bool(self._recipe.every_steps) and step % int(self._recipe.every_steps or 1) == 0

    def saved(self) -> None:
        """A checkpoint was written: restart the clock, drop the request."""
        self._saved = time.monotonic()
        # a stop that was asked for meanwhile stays
        self._asked = Request(self._asked.stop, False)
        self._stale = self._ranks.world > 1
        if self._ranks.first:
            # a request that came while the checkpoint was
            # written is met by it: no step was made meanwhile
            self._file("checkpoint").unlink(missing_ok=True)

    def settle(self) -> None:
        """Collect the exchange in flight; before the ranks part."""
        self._agreement.settle()

    def clear(self) -> None:
        """Requests are met, or void because they were made to an earlier process of this run."""
        if self._ranks.first:
            for name in ("stop", "checkpoint"):
                self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        folder: Path = self._run.control
        return folder / name

    def _look(self) -> None:
        """Ask the clock and, a few times a second, the folder (first rank only)."""
        now = time.monotonic()
        # files are looked at some times a second, not at each step: they may lie on a network
        if not self._ranks.first or now - self._polled < _POLL_SECONDS:
            return
        self._polled = now
        stop = Stop.ASKED if self._file("stop").exists() else Stop.NO
        save = now - self._saved >= self._recipe.every_seconds or self._file("checkpoint").exists()
        self._asked = Request(stop, save)
