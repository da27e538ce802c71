"""One reader of a run that goes on: `runs tail`, the live line of `train` and the dashboard all
follow through it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dgc.run.events import Event, EventKind, EventReader
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgcctl.core.runs.listing import UNREADABLE, Run, read_run

# What a reader needs to wait for: a run in one of these states still writes.
GOING = frozenset({State.QUEUED, State.RUNNING})


@dataclass(frozen=True)
class LogBatch:
    """What one look found. `restarted`: the log was cut or replaced, forget what came before."""

    events: list[Event]
    run: Run
    restarted: bool = False
    skipped: list[int] = field(default_factory=list)
    more: bool = False  # a log is being caught up with a chunk at a time: poll again at once

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.run.state not in GOING and self.run.state != UNREADABLE


class Tail:
    """Follows one run. `poll` returns all that is new;
    the state is read before the log, so `over` loses no event.

    With `chunk` (bytes) a poll reads no more than that, so that a reader with a screen stays awake
    over a long log.
    """

    def __init__(self, run: RunDir, *, chunk: int | None = None) -> None:
        self.run = run
        self._whole = chunk is None
        self._reader = EventReader(run.events, chunk=chunk) if chunk else EventReader(run.events)
        self._reported = 0

    def poll(self) -> LogBatch:
        # State first, log second. The other way round, a trainer that writes its last event and
        # then its end in between would be over with an event unread.
        state = read_run(self.run)
        events, restarted = self._read()
        if restarted:
            # lines that were damaged are told of once
            self._reported = 0
        skipped = self._reader.skipped[self._reported :]
        self._reported = len(self._reader.skipped)
        return LogBatch(events, state, restarted, skipped, self._reader.behind)

    def _read(self) -> tuple[list[Event], bool]:
        events = self._reader.poll()
        restarted = self._reader.restarted
        # Without a chunk of its own the reader still reads in pieces; here they are put together,
        # and what was read before the log was replaced is dropped.
        while self._whole and self._reader.behind:
            more = self._reader.poll()
            events = more if self._reader.restarted else events + more
            restarted = restarted or self._reader.restarted
        return events, restarted


def follow(
    tail: Tail, *, interval: float = 0.25, sleep: Callable[[float], None] = time.sleep
) -> Iterator[LogBatch]:
    """Batches until the run is over; empty ones too, so that the caller can show the time."""
    while True:
        batch = tail.poll()
        yield batch
        if batch.over:
            return
        sleep(interval)


@dataclass
class Progress:
    """How far a run is, from its events: what the live line and the dashboard's header show."""

    epochs: int = 0
    steps: int = 0
    epoch: int = 0
    step: int = 0
    progress: float = 0.0
    loss: float | None = None
    error: float | None = None
    lr: float | None = None
    images_per_s: float | None = None
    eta_s: float | None = None
    top1_error: float | None = None
    world_size: int = 1
    seen: bool = False

    def take(self, events: list[Event]) -> None:
        """Move on by some events."""
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        keys = _TAKEN.get(event["kind"])
        if keys is None:
            return
        self.seen = True
        for key in keys:
            # absent says nothing: what was known stays
            value: Any = event.get(key)
            if value is not None:
                setattr(self, key, value)

    def pruned(self, gate_factor: float) -> float:
        """Share of the input channels that every head now leaves out (source:
        the schedule of dgc.schedule).
        """
        from dgc.schedule import PRUNING_END, PRUNING_START

        span = (self.progress - PRUNING_START) / (PRUNING_END - PRUNING_START)
        return (1 - gate_factor) * min(1.0, max(0.0, span))


_TAKEN: dict[str, tuple[str, ...]] = {
    EventKind.START: ("steps", "epochs", "world_size"),
    EventKind.RESUME: ("step",),
    EventKind.STEP: ("step", "epoch", "progress", "lr", "loss", "error"),
    EventKind.EVAL: ("top1_error",),
    EventKind.PERF: ("images_per_s", "eta_s"),
}
