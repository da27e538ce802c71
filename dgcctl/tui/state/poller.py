"""The one thread that touches run directories: looks by stat, reads what changed, hands it to the
screen's thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from dgc.errors import IntegrityError
from dgc.run.files import open_regular, read_bounded
from dgc.run.paths import RunDir
from dgc.run.status import State, inferred_state
from dgcctl.core.runs import labels, listing
from dgcctl.core.runs.listing import Run
from dgcctl.tui.state.feed import FeedBatch, Follower
from dgcctl.tui.state.processes import Sample

SCAN_EVERY = 1.0  # seconds between two looks at the records of all runs (two stat calls a run)
LIST_EVERY = 5.0  # the folder is listed anew at least so often, even if its time did not change
SAMPLE_EVERY = 2.0
DISK_EVERY = 10.0
_TAIL = 16_384  # bytes at the end of a log in which its last account of the speed is looked for
FOLLOW_AT_MOST = 16  # logs of running runs that are read though nobody looks at them (for alerts)


@dataclass(frozen=True)
class Listed:
    """All runs, newest first, and the lowest top-1 error of each that has been evaluated."""

    runs: tuple[Run, ...]
    best: dict[str, float] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)  # images/s when it was last written
    gone: bool = False  # whether the folder was there and is no longer


@dataclass(frozen=True)
class Sampled:
    run_id: str
    sample: Sample | None


@dataclass(frozen=True)
class Disk:
    free: int


News = Listed | FeedBatch | Sampled | Disk


class Catalogue:
    """All runs of the folder (and those named from elsewhere), read again only where their files
    changed.
    """

    def __init__(self, runs_dir: Path, extra: Iterable[RunDir] = ()) -> None:
        self.runs_dir = runs_dir
        self._extra = tuple(extra)
        self._known: dict[Path, tuple[Any, Run]] = {}
        self._dirs: list[RunDir] = []
        self._folder: int | None = None
        self._listed_at = -LIST_EVERY
        self._last: tuple[Run, ...] | None = None
        self._seen = self.gone = False
        self.best: dict[str, float] = {}
        self.speed: dict[str, float] = {}

    def look(self, now: float) -> tuple[Run, ...] | None:
        """The runs, newest first, or None where nothing changed."""
        gone = self._is_gone()
        changed, self.gone = gone != self.gone, gone
        self._list(now)
        # `_read` hands out the same object for an unchanged run, so identity says what changed
        found = tuple(self._read(run) for run in self._dirs)
        if (
            self._last is not None
            and not changed
            and len(found) == len(self._last)
            and all(map(_same, found, self._last))
        ):
            return None
        self._last = found
        return found

    def _is_gone(self) -> bool:
        there = self.runs_dir.is_dir()
        self._seen = self._seen or there
        return self._seen and not there

    def _list(self, now: float) -> None:
        # A run that comes or goes changes the folder's time. Where that time is coarse (network
        # disks), two changes may share one: hence the second condition.
        folder = _mtime(self.runs_dir)
        if folder == self._folder and now - self._listed_at < LIST_EVERY:
            return
        self._folder, self._listed_at = folder, now
        inside = list(listing.iterate(self.runs_dir))
        paths = {run.path.resolve() for run in inside}
        self._dirs = inside + [
            run for run in self._extra if run.path.is_dir() and run.path.resolve() not in paths
        ]
        self._known = {
            run.path: self._known[run.path] for run in self._dirs if run.path in self._known
        }

    def _read(self, run: RunDir) -> Run:
        # status.json is replaced at every heartbeat, metrics.json at every evaluation: what is
        # shown of a run in the list stands in these two, and in what a person said of it
        signature = (_mtime(run.status), _mtime(run.metrics), _mtime(run.file(labels.FILE)))
        known = self._known.get(run.path)
        if known is not None and known[0] == signature and self._still(known[1]):
            return known[1]
        fresh = listing.read_run(run)
        # read here, in this thread: the screen needs them of every run that it lists
        _ = fresh.recipe, fresh.target, fresh.given
        speed = last_speed(run)
        if speed is not None:
            self.speed[run.id] = speed
        best = best_of_curve(run.file("plots") / "eval.csv")
        if best is not None:
            self.best[run.id] = best
        self._known[run.path] = (signature, fresh)
        return fresh

    def _still(self, run: Run) -> bool:
        """Whether an unchanged record still means the same: a running one may have died."""
        # a dead trainer changes no file: only its absence says so
        return run.state != State.RUNNING or inferred_state(run.status) is State.RUNNING


def best_of_curve(path: Path) -> float | None:
    """Lowest top-1 error in plots/eval.csv; None where there is none (or no such file yet)."""
    try:
        header, *rows = read_bounded(path).decode("utf-8").splitlines()
        column = header.split(",").index("top1_error")
        return min(float(row.split(",")[column]) for row in rows)
    except (OSError, IntegrityError, ValueError, IndexError):
        return None


def last_speed(run: RunDir) -> float | None:
    """Images a second as the log last said it; None where it does not (near its end)."""
    try:
        with open_regular(run.events) as file:
            file.seek(0, os.SEEK_END)
            # the end alone: a log of days may have gigabytes, and its speed stands near the end
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read(_TAIL).splitlines()
    except (OSError, IntegrityError):
        return None
    for line in reversed(lines):
        if b'"perf"' in line:
            with contextlib.suppress(orjson.JSONDecodeError, TypeError, ValueError, KeyError):
                return float(orjson.loads(line)["images_per_s"])
    return None


def _same(one: Run, other: Run) -> bool:
    return one is other


def _mtime(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


class Poller:
    """Looks at everything that is due and posts the news. `run` is the body of a thread; `tick` is
    one look.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        post: Callable[[News], object],
        *,
        interval: float,
        sample: Callable[[int], Sample | None],
        free_bytes: Callable[[Path], int],
    ) -> None:
        self._catalogue, self._post, self._interval = catalogue, post, interval
        self._sample, self._free_bytes = sample, free_bytes
        self._followers: dict[str, Follower] = {}
        self._watched: tuple[RunDir, ...] = ()
        self._runs: tuple[Run, ...] = ()
        self.looks = 0  # how often everything that was due has been looked at
        self._due = {"scan": 0.0, "sample": 0.0, "disk": 0.0}
        self._free: int | None = None
        self._sampled: dict[str, Sample | None] = {}
        self._wake = threading.Event()
        self._over = threading.Event()

    # --- from the screen's thread -----------------------------------------------------------------

    def watch(self, wanted: Iterable[RunDir]) -> None:
        """Follow the logs of these runs (those that run are followed anyway)."""
        # one assignment of a whole tuple: the thread sees the old one or the new one, so no lock
        self._watched = tuple(wanted)
        self._wake.set()

    def stop(self) -> None:
        self._over.set()
        self._wake.set()

    # --- the thread -------------------------------------------------------------------------------

    def run(self) -> None:
        while not self._over.is_set():
            busy = self.tick(time.monotonic())
            if not busy:
                self._wake.wait(self._interval)
            # after the wait and before the next look: whoever woke us is served by that look
            self._wake.clear()

    def tick(self, now: float) -> bool:
        """One look at what is due; whether a log has more to read at once."""
        if self._is_due("scan", now, SCAN_EVERY):
            self._scan(now)
        busy = self._follow()
        if self._is_due("sample", now, SAMPLE_EVERY):
            self._sample_live()
        if self._is_due("disk", now, DISK_EVERY):
            self._look_at_disk()
        self.looks += 1
        return busy

    def _is_due(self, name: str, now: float, every: float) -> bool:
        if now < self._due[name]:
            return False
        # from now, not from when it was due: a laptop that slept has nothing to catch up with
        self._due[name] = now + every
        return True

    def _scan(self, now: float) -> None:
        found = self._catalogue.look(now)
        if found is not None:
            self._runs = found
            known = self._catalogue
            self._post(Listed(found, dict(known.best), dict(known.speed), known.gone))

    def _follow(self) -> bool:
        # a bounded number: each follower holds the columns of its log in memory
        live = [run.dir for run in self._runs if run.state == State.RUNNING][:FOLLOW_AT_MOST]
        wanted = {run.id: run for run in (*live, *self._watched)}
        busy = False
        for key, run in wanted.items():
            # kept when nothing needs it for a while: a new one would tell all that is known again
            batch = self._followers.setdefault(key, Follower(run)).poll()
            if batch is not None:
                self._post(batch)
                busy = busy or not batch.caught_up
        return busy

    def _sample_live(self) -> None:
        for run in self._runs:
            if run.state == State.RUNNING and run.id in self._followers:
                self._say_sample(run.id, self._sample(run.status.pid))
        for gone in [key for key in self._sampled if self._state(key) != State.RUNNING]:
            self._say_sample(gone, None)
            del self._sampled[gone]

    def _say_sample(self, run_id: str, found: Sample | None) -> None:
        # news make the screen look again: none where nothing changed
        if self._sampled.get(run_id) != found:
            self._sampled[run_id] = found
            self._post(Sampled(run_id, found))

    def _state(self, run_id: str) -> str:
        return next((run.state for run in self._runs if run.id == run_id), "")

    def _look_at_disk(self) -> None:
        with contextlib.suppress(OSError):
            free = self._free_bytes(self._catalogue.runs_dir)
            # in steps of 256 MiB: each byte that is written would be news
            if self._free is None or (free >> 28) != (self._free >> 28):
                self._free = free
                self._post(Disk(free))
