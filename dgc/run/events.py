"""The log of a run (events.jsonl): how a line is written, read, followed and counted."""

from __future__ import annotations

import enum
import hashlib
import math
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from dgc.run.files import disk_error, open_regular, write_all
from dgc.run.paths import RunDir

Event = dict[str, Any]


class EventKind(enum.StrEnum):
    """Event kinds. STEP, EPOCH and EVAL hold only what a repetition must reproduce; times go to
    PERF.

    `epoch` is everywhere, as in status.json, the number of epochs that are finished there: 0 in the
    steps of the first epoch, 1 in the rows that close it.
    """

    START = "start"  # recipe, world_size, steps, epochs, resumed
    # step, closed: which rows before this line are void (see live_rows); exact, differences
    RESUME = "resume"
    STEP = "step"  # step, epoch, and what dgc.run.metrics.STEP_METRICS logs
    EPOCH = "epoch"  # epoch, step, train_loss, train_error
    EVAL = "eval"  # epoch, step, split, top1_error, top5_error (more than 5 classes), loss, samples
    PERF = "perf"  # step, images_per_s, step_ms, data_ms, cpu, rss, gpu_memory, eta_s
    GATES = "gates"  # epoch, step, file
    CHECKPOINT = "checkpoint"  # step, epoch, path, bytes, ms, best
    ALERT = "alert"  # level: info | warning | error, text
    END = "end"  # state, reason, step


METRIC_KINDS = frozenset({EventKind.STEP, EventKind.EPOCH, EventKind.EVAL})
_CLOCK_KEYS = ("t", "crc")


def encode_event(kind: str, fields: Mapping[str, Any], *, now: float | None = None) -> bytes:
    """One line of the log: JSON, NaN and infinities as null plus `nonfinite`;
    last the CRC-32 of what precedes it.
    """
    event: Event = {"kind": str(kind), **fields, "t": time.time() if now is None else now}
    nonfinite = {
        key: repr(value)
        for key, value in event.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    if nonfinite:
        event["nonfinite"] = nonfinite
    # The checksum is over the line as it stands, so it must be the last key: a reader cuts it off
    # and counts over the bytes before it, whatever order a JSON library would give them.
    body = orjson.dumps(event)[:-1]
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def decode_event(line: bytes) -> Event | None:
    """The event of one line without its newline, or None where the line is damaged."""
    body, mark, tail = line.rpartition(b',"crc":"')
    # the length first: a checksum is eight hexadecimal digits, whatever stands in their place
    if not mark or len(tail) != 10 or tail[8:] != b'"}' or tail[:8] != b"%08x" % zlib.crc32(body):
        return None
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    # JSON that is no event is damage too: the checksum is no proof of who wrote it
    return event if isinstance(event, dict) and _is_event(event) else None


def _is_event(event: Event) -> bool:
    kind = event.get("kind")
    if kind not in METRIC_KINDS:
        return isinstance(kind, str)
    # scripts of an older release could log a step that is no number: such a row has no place
    return isinstance(event.get("step"), int | float) and isinstance(
        event.get("epoch", 0), int | float
    )


class EventWriter:
    """Appends to events.jsonl: one os.write a line on an O_APPEND descriptor,
    a torn tail cut off at opening.
    """

    def __init__(self, run: RunDir) -> None:
        self.path = run.events
        # O_APPEND: the end of the file is found by the system in the same call that writes, so
        # that two writers by mistake interleave lines and not bytes.
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        # A writer that was killed may have left half a line, to which ours would be glued.
        self._cut_torn_tail()

    def _cut_torn_tail(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n":
            return
        # A megabyte is many times the longest line; no more of a long log is read for this.
        start = max(0, size - (1 << 20))
        os.ftruncate(
            self._descriptor,
            start + os.pread(self._descriptor, size - start, start).rfind(b"\n") + 1,
        )

    def append(self, kind: str, **fields: Any) -> None:
        self.append_lines([encode_event(kind, fields)])

    def append_lines(self, lines: Iterable[bytes]) -> None:
        """Write whole lines in one call;
        where the disk refuses, none of them stays (ResourceError).
        """
        data = b"".join(lines)
        size = os.fstat(self._descriptor).st_size
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            # A full disk may have taken part of it. Whole lines or none: what is written after it
            # must not begin in the middle of one.
            os.ftruncate(self._descriptor, size)
            raise disk_error(error, self.path, len(data)) from error

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class EventReader:
    """Follows a log that may be growing: each `poll` returns the new complete events.

    Damaged lines are skipped and their offsets kept in `skipped`; a file that shrank or was
    replaced is read anew (`restarted` turns true for that poll); an absent file is an empty one.
    """

    def __init__(self, path: Path, *, chunk: int = 8 << 20) -> None:
        self.path = path
        self.offset = 0
        self.skipped: list[int] = []
        self.restarted = False
        # whether the last poll ended at its chunk, so that complete lines may wait past it
        self.behind = False
        self._chunk = chunk
        self._inode: tuple[int, int] | None = None

    def poll(self) -> list[Event]:
        """New events since the last call; reads at most one chunk (call again while `behind`)."""
        self.restarted = self.behind = False
        try:
            with open_regular(self.path) as file:
                self._notice_replacement(os.fstat(file.fileno()))
                file.seek(self.offset)
                # Whoever appends may be in the middle of a line: what follows the last newline is
                # left for the next poll.
                data = file.read(self._chunk)
        # a run that has not begun to log is a run without events
        except FileNotFoundError:
            return []
        complete = data.rfind(b"\n") + 1
        self.behind = len(data) == self._chunk
        # no line of ours is that long: pass over it, or it would be read for ever
        if self.behind and not complete:
            self.skipped.append(self.offset)
            complete = len(data)
            data = b""
        events = list(self._decode(data[:complete]))
        self.offset += complete
        return events

    def _notice_replacement(self, facts: os.stat_result) -> None:
        inode = (facts.st_dev, facts.st_ino)
        # Another file under the same name, or the same cut to less than was read: our offset
        # means nothing any more. (One that was cut and grew past the offset is not noticed here;
        # its lines are, by their checksums.)
        if self._inode is not None and (inode != self._inode or facts.st_size < self.offset):
            self.offset, self.skipped, self.restarted = 0, [], True
        self._inode = inode

    def _decode(self, data: bytes) -> Iterator[Event]:
        offset = self.offset
        for line in data.splitlines(keepends=True):
            event = decode_event(line.rstrip(b"\n"))
            if event is None:
                self.skipped.append(offset)
            else:
                yield event
            # Byte offsets, not line numbers: a person finds the damaged place with any tool.
            offset += len(line)


def read_events(run: RunDir) -> list[Event]:
    """All complete, undamaged events of a run."""
    reader = EventReader(run.events)
    events = reader.poll()
    while reader.behind:
        events += reader.poll()
    return events


def live_rows(events: Iterable[Event]) -> list[Event]:
    """The metric rows that count:
    those that a resume replayed are dropped, so that no step stands twice.

    A resume at a step keeps the rows up to it; where it says `closed: false`, the epoch that ends
    at this step was not closed, and its EPOCH and EVAL rows come again.
    """
    rows: list[Event] = []
    for event in events:
        if event["kind"] == EventKind.RESUME:
            # In the order of the log: a run may be resumed again and again, from earlier points
            # too.
            rows = [row for row in rows if _survives(row, event)]
        elif event["kind"] in METRIC_KINDS:
            rows.append(event)
    return rows


def _survives(row: Event, resume: Event) -> bool:
    # At the very step of the checkpoint the step's own row stands; the rows that close an epoch
    # come after it, and stand only where they had been written when it was saved.
    if row["step"] != resume["step"]:
        return bool(row["step"] < resume["step"])
    return row["kind"] == EventKind.STEP or bool(resume.get("closed", True))


def metric_digest(events: Iterable[Event]) -> str:
    """SHA-256 over the metric rows without their clock:
    equal for two runs that computed the same.
    """
    # as JSON with sorted keys: the order in which a writer named its fields says nothing
    digest = hashlib.sha256()
    for row in live_rows(events):
        digest.update(
            orjson.dumps(
                {k: v for k, v in row.items() if k not in _CLOCK_KEYS}, option=orjson.OPT_SORT_KEYS
            )
        )
        digest.update(b"\n")
    return digest.hexdigest()
