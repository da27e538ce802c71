"""What deserves a notification: NaN, plateau, a run that failed or died, a disk nearly full, a
target reached.

Each is told once, and only where it happens while the dashboard looks on; what a log said before is
on the Run screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dgc.run.status import State
from dgcctl.core import numbers
from dgcctl.core.runs.listing import UNREADABLE, Run
from dgcctl.tui.state.feed import Feed
from dgcctl.tui.state.run_facts import TOP1, Target, recipe_of, targets
from dgcctl.tui.state.store import Store, reason

_GOES_ON = (State.QUEUED, State.RUNNING)
Level = Literal["information", "warning", "error"]
DISK_LOW = 2 << 30
PLATEAU_EVALS = 5
PLATEAU_GAIN = 0.05  # percentage points; less than this in PLATEAU_EVALS evaluations is a plateau


@dataclass(frozen=True)
class Alert:
    level: Level
    title: str
    text: str


def plateau(errors: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    """Whether the last evaluations did not improve on the best one before them."""
    # with fewer evaluations the first ones, which fall fast, would be most of what is compared
    if len(errors) <= 2 * PLATEAU_EVALS:
        return False
    before, lately = errors[:-PLATEAU_EVALS], errors[-PLATEAU_EVALS:]
    return bool(np.nanmin(lately) > np.nanmin(before) - PLATEAU_GAIN)


def _goes_on(run: Run) -> str:
    """How a run that ended early goes on."""
    return "its script goes on with it (resume=True)" if run.by_script else "press r to resume it"


class AlertMonitor:
    """Compares what is known now with what was known at the last look."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()
        self._caught_up: set[str] = set()
        self._targets: dict[str, list[Target]] = {}
        self._ended: set[str] = set()

    def tells_end(self, run_id: str) -> bool:
        """Whether the end of this run is still untold; from now on it is told (once is enough)."""
        fresh = run_id not in self._ended
        self._ended.add(run_id)
        return fresh

    def begins(self, run_id: str) -> None:
        """The run goes on: its next end is another one."""
        self._ended.discard(run_id)

    def look(self, store: Store) -> list[Alert]:
        # states of all runs; of the log only those that are read: a folder may hold thousands
        found = [alert for run in store.runs.values() for alert in self._state(run)]
        for run_id, feed in store.feeds.items():
            if run_id in store.runs and feed.caught_up:
                found += self._feed(store.runs[run_id], feed)
        return found + self._disk(store)

    def _state(self, run: Run) -> list[Alert]:
        before = self._states.get(run.id)
        self._states[run.id] = run.state
        # the first state that is seen is how the run was found, not something that happened
        if before is None or before == run.state:
            return []
        if run.state in _GOES_ON:
            self.begins(run.id)
            return []
        if not self.tells_end(run.id):
            return []
        match run.state:
            case State.FAILED:
                return [Alert("error", f"{run.id} failed", reason(run) or "no reason given")]
            case State.DIED:
                text = (
                    f"process {run.status.pid} is gone at step {run.status.step}: {_goes_on(run)}"
                )
                return [Alert("error", f"{run.id} died", text)]
            case State.DONE:
                return [Alert("information", f"{run.id} is done", reason(run) or "all steps taken")]
            case State.STOPPED:
                return [Alert("information", f"{run.id} stopped", reason(run) or _goes_on(run))]
        return (
            [Alert("error", f"{run.id} cannot be read", reason(run))]
            if run.state == UNREADABLE
            else []
        )

    def _feed(self, run: Run, feed: Feed) -> list[Alert]:
        facts = self._facts(run, feed)
        fresh = [(key, alert) for key, alert in facts if (run.id, key) not in self._told]
        # Noted also where it is not said: what was there before is not news later on.
        self._told |= {(run.id, key) for key, _ in facts}
        # what a log said before the dashboard had read it to its end is history, no news
        first = run.id not in self._caught_up
        self._caught_up.add(run.id)
        return [] if first else [alert for _, alert in fresh]

    def _facts(self, run: Run, feed: Feed) -> list[tuple[str, Alert]]:
        facts = [
            (
                f"alert {index}",
                Alert(
                    "error" if event.get("level") == "error" else "warning",
                    run.id,
                    str(event["text"]),
                ),
            )
            for index, event in enumerate(feed.alerts)
            if event.get("text") and event.get("level") != "info"
        ]
        if feed.skipped:
            facts.append(
                (f"skipped {len(feed.skipped)}", Alert("warning", run.id, skipped_text(feed)))
            )
        errors = feed.points(TOP1).value
        loss = feed.points("step.loss").value
        if len(loss) and not np.isfinite(loss[-1]):
            facts.append(
                ("nan", Alert("error", run.id, f"loss is {loss[-1]} at step {feed.last_step}"))
            )
        if run.state == State.RUNNING and plateau(errors):
            text = f"no gain over {PLATEAU_GAIN} points in {PLATEAU_EVALS} evaluations"
            facts.append(("plateau", Alert("warning", f"{run.id}: plateau", text)))
        return facts + self._reached(run, feed)

    def _reached(self, run: Run, feed: Feed) -> list[tuple[str, Alert]]:
        if run.id not in self._targets:
            # read once: a recipe does not change while its run trains
            self._targets[run.id] = targets(recipe_of(run.dir))
        facts = []
        for target in self._targets[run.id]:
            value = feed.last(f"eval.{target.metric}")
            if value is not None and target.met(value):
                text = (
                    f"{target.metric} {value:.2f} <= {target.value:g} + {target.tolerance:g}"
                    f" ({target.source})"
                )
                facts.append(
                    (
                        f"target {target.metric}",
                        Alert("information", f"{run.id}: target reached", text),
                    )
                )
        return facts

    def _disk(self, store: Store) -> list[Alert]:
        low = store.free is not None and store.free < DISK_LOW
        told = ("", "disk") in self._told
        if low and not told:
            self._told.add(("", "disk"))
            return [
                Alert(
                    "warning",
                    "disk nearly full",
                    f"{numbers.rough_size(store.free)} free where the runs lie",
                )
            ]
        # Once there is room again, the next shortage is worth a word.
        if not low:
            self._told.discard(("", "disk"))
        return []


def skipped_text(feed: Feed) -> str:
    """`1 line skipped (offset 812)`."""
    count = len(feed.skipped)
    offsets = ", ".join(str(offset) for offset in feed.skipped[:3]) + (", ..." if count > 3 else "")
    return f"{count} line{'s' if count > 1 else ''} skipped (offset {offsets})"
