"""One run's log as columns. A `Follower` reads and sorts it in a worker thread; a `Feed` is grown
by the UI thread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dgc.errors import IntegrityError
from dgc.run.events import Event, EventKind
from dgc.run.paths import RunDir
from dgcctl.core.runs.tail import Tail
from dgcctl.tui.raster import Floats

_COLUMNS = frozenset({EventKind.STEP, EventKind.EPOCH, EventKind.EVAL, EventKind.PERF})
_NO_METRIC = frozenset({"kind", "step", "epoch", "t", "crc", "samples"})
CHUNK = 1 << 20


class GrowingArray:
    """A float64 array that grows in amortised constant time and can be cut back."""

    def __init__(self) -> None:
        self._data: Floats = np.empty(8)
        self.size = 0

    @property
    def view(self) -> Floats:
        return self._data[: self.size]

    def extend(self, values: Any) -> None:
        needed = self.size + len(values)
        # doubled: as many copies as there are digits, not as there are points
        if needed > len(self._data):
            grown = np.empty(max(needed, 2 * len(self._data)))
            grown[: self.size] = self.view
            self._data = grown
        self._data[self.size : needed] = values
        self.size = needed

    def truncate(self, size: int) -> None:
        self.size = min(self.size, size)


@dataclass(frozen=True)
class Points:
    """One metric of one run: equally long columns; `value` may hold NaN."""

    step: Floats
    seconds: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.value)


@dataclass
class Rows:
    """New rows of one kind: `values[name]` holds positions into the rows, and the numbers there."""

    kind: str
    steps: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        position = len(self.steps)
        self.steps.append(float(event.get("step", 0)))
        self.times.append(float(event.get("t", 0.0)))
        for name, value in _numbers(event):
            positions, numbers = self.values.setdefault(name, ([], []))
            positions.append(position)
            numbers.append(value)


def _numbers(event: Event) -> Iterator[tuple[str, float]]:
    # type and not isinstance: this is asked for each number of each line, and bool is none
    for name, value in event.items():
        kind = type(value)
        if (kind is float or kind is int) and name not in _NO_METRIC:
            yield name, value
    # NaN and infinities stand as text beside the line: JSON has no word for them
    for name, text in event.get("nonfinite", {}).items():
        yield name, float(text)


@dataclass
class FeedBatch:
    """What one poll brought: column rows and single events, in the order of the log."""

    run_id: str
    parts: list[Rows | Event] = field(default_factory=list)
    restarted: bool = False
    skipped: tuple[int, ...] = ()
    caught_up: bool = True
    notice: str = ""


def sort_events(events: Iterable[Event]) -> list[Rows | Event]:
    """Collect runs of column events into `Rows`; a RESUME ends them all, for it voids rows before
    it.
    """
    parts: list[Rows | Event] = []
    open_rows: dict[str, Rows] = {}
    for event in events:
        kind = event["kind"]
        if kind in _COLUMNS:
            if kind not in open_rows:
                open_rows[kind] = Rows(kind)
                parts.append(open_rows[kind])
            open_rows[kind].add(event)
        else:
            # rows before and after a resume must not be one block: those before are cut back
            if kind == EventKind.RESUME:
                open_rows = {}
            parts.append(event)
    return parts


class Follower:
    """Watches events.jsonl by stat and reads it, a chunk a poll, through the tail that `runs tail`
    uses. One thread.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._tail = Tail(run, chunk=CHUNK)
        self._seen: tuple[int, int, int] | None = None
        self._began = False

    def poll(self) -> FeedBatch | None:
        """What is new, or None. Never raises for what may happen to a file that is being written or
        taken away.
        """
        # a stat is enough where nothing changed, which is nearly always
        facts = self._facts()
        if facts == self._seen:
            return None
        try:
            return self._read(facts)
        # remembered: what cannot be read is told once, and looked at again when it changes
        except OSError as error:
            self._seen = facts
            return FeedBatch(
                self.run.id, notice=f"{self.run.events}: cannot be read ({error.strerror})"
            )
        except IntegrityError as error:
            self._seen = facts
            return FeedBatch(self.run.id, notice=str(error))

    def _facts(self) -> tuple[int, int, int] | None:
        try:
            facts = os.stat(self.run.events)
        except OSError:
            return None
        return (facts.st_ino, facts.st_size, facts.st_mtime_ns)

    def _read(self, facts: tuple[int, int, int] | None) -> FeedBatch | None:
        found = self._tail.poll()
        # an empty log is told once: nobody need wait for more
        first, self._began = not self._began, True
        self._seen = None if found.more else facts
        if not (found.events or found.restarted or found.skipped or first):
            return None
        return FeedBatch(
            self.run.id,
            sort_events(found.events),
            found.restarted,
            tuple(found.skipped),
            not found.more,
        )


class MetricTable:
    """The rows of one kind: step and time for all, a sparse column for each metric."""

    def __init__(self) -> None:
        self.step, self.time = GrowingArray(), GrowingArray()
        self.rows: dict[str, GrowingArray] = {}
        self.values: dict[str, GrowingArray] = {}
        self.generation = 0  # grows with every change

    def add(self, part: Rows) -> None:
        self.generation += 1
        # positions of a part count from its beginning, those of the table from the first row of all
        base = self.step.size
        self.step.extend(part.steps)
        self.time.extend(part.times)
        for name, (positions, numbers) in part.values.items():
            self.rows.setdefault(name, GrowingArray()).extend(
                np.asarray(positions, dtype=np.float64) + base
            )
            self.values.setdefault(name, GrowingArray()).extend(numbers)

    def void_after(self, step: float) -> None:
        """Drop the rows that a resume replays."""
        self.generation += 1
        # steps grow: rows of a resume are cut by a search, not by going through them
        keep = int(np.searchsorted(self.step.view, step, "right"))
        self.step.truncate(keep)
        self.time.truncate(keep)
        for name, rows in self.rows.items():
            left = int(np.searchsorted(rows.view, keep, "left"))
            rows.truncate(left)
            self.values[name].truncate(left)


_NO_POINTS = Points(np.empty(0), np.empty(0), np.empty(0))


class Feed:
    """All that a run's log has said so far. `version` grows with every change."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.version = 0
        self._clear()

    def _clear(self) -> None:
        self.tables: dict[str, MetricTable] = {}
        self._points: dict[str, tuple[int, Points]] = {}
        self.start: Event = {}
        self.alerts: list[Event] = []
        self.checkpoints: list[Event] = []
        self.gates: list[Event] = []
        self.resumes: list[Event] = []
        self.end: Event = {}
        self.skipped: tuple[int, ...] = ()
        self.notice = ""
        self.caught_up = False

    def apply(self, batch: FeedBatch) -> None:
        if batch.restarted:
            self._clear()
        self.version += 1
        self.skipped += batch.skipped
        self.notice, self.caught_up = batch.notice, batch.caught_up
        for part in batch.parts:
            if isinstance(part, Rows):
                self.tables.setdefault(part.kind, MetricTable()).add(part)
            else:
                self._take(part)

    def _take(self, event: Event) -> None:
        match event["kind"]:
            case EventKind.START:
                self.start = event
            case EventKind.RESUME:
                self._resume(event)
            case EventKind.ALERT:
                self.alerts.append(event)
            case EventKind.CHECKPOINT:
                self.checkpoints.append(event)
            case EventKind.GATES:
                self.gates.append(event)
            case EventKind.END:
                self.end = event

    def _resume(self, event: Event) -> None:
        step = float(event.get("step", 0))
        # Steps after the checkpoint are trained again and written again: their first values are no
        # longer part of the run. An end that was written before is not the end.
        self.resumes.append(event)
        self.end = {}
        for table in self.tables.values():
            table.void_after(step)
        self.gates = [gate for gate in self.gates if gate.get("step", 0) <= step]

    # --- what charts ask --------------------------------------------------------------------------

    def names(self) -> list[str]:
        """All metrics, as `kind.name`, in the order in which they appeared."""
        return [f"{kind}.{name}" for kind, table in self.tables.items() for name in table.values]

    def points(self, name: str) -> Points:
        """The points of `kind.name` (none where there are none); the same object until there are
        others.
        """
        kind, _, metric = name.partition(".")
        table = self.tables.get(kind)
        if table is None or metric not in table.values:
            return _NO_POINTS
        kept = self._points.get(name)
        if kept is None or kept[0] != table.generation:
            kept = (table.generation, self._gather(table, metric))
            self._points[name] = kept
        return kept[1]

    def _gather(self, table: MetricTable, metric: str) -> Points:
        # the clock of a resumed run may have been set back: on the axis of time no curve goes back
        rows = table.rows[metric].view.astype(np.int64)
        seconds = (
            np.maximum.accumulate(table.time.view[rows] - self.started)
            if len(rows)
            else np.empty(0)
        )
        return Points(
            table.step.view[rows], np.maximum(0.0, seconds), table.values[metric].view.copy()
        )

    def count(self, name: str) -> int:
        """How many points `kind.name` has."""
        kind, _, metric = name.partition(".")
        table = self.tables.get(kind)
        return table.values[metric].size if table and metric in table.values else 0

    def last(self, name: str) -> float | None:
        kind, _, metric = name.partition(".")
        table = self.tables.get(kind)
        values = table.values[metric].view if table and metric in table.values else np.empty(0)
        return float(values[-1]) if len(values) else None

    @property
    def started(self) -> float:
        # a log that lost its first line begins with its first row
        return float(self.start.get("t", 0.0)) or min(
            (float(table.time.view[0]) for table in self.tables.values() if table.time.size),
            default=0.0,
        )

    @property
    def steps_per_epoch(self) -> float:
        steps, epochs = self.start.get("steps") or 0, self.start.get("epochs") or 0
        return steps / epochs if steps and epochs else math.nan

    @property
    def last_step(self) -> int:
        table = self.tables.get(EventKind.STEP)
        return int(table.step.view[-1]) if table and table.step.size else 0

    def known(self) -> dict[str, Any]:
        """Counts for a reader's eye: what was skipped, what was said."""
        return {
            "skipped": len(self.skipped),
            "alerts": len(self.alerts),
            "checkpoints": len(self.checkpoints),
        }
