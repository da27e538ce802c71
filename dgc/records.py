"""The run directory: its names, its events, who may write it and how it is read. No torch.

The trainer is the only writer of a run; everybody else reads. Layout (all plain files):

    recipe.yaml       the resolved recipe, every default written out, each value's origin beside it
    env.json git.json git.patch untracked/ data.json model.json argv.json   the record of what ran
    status.json       state, pid, start token, heartbeat, epoch, step (atomic)
    events.jsonl      append-only; one write a line, a checksum a line; NaN is null plus a flag
    gates/            gate maps, one JSON file per evaluation
    metrics.json, plots/      DVC's form of the result
    checkpoints/step-*/, last.json, best.json       safetensors + JSON + digests, and the pointers
    control/          requests to the trainer: `stop`, `checkpoint` (empty files; the trainer removes them)
    log.txt, verdict.json
"""

from __future__ import annotations

import enum
import hashlib
import math
import os
import secrets
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from dgc.errors import IntegrityError
from dgc.fs import atomic_write, disk_error, open_regular, read_bounded, write_all
from dgc.names import checked_name

SCHEMA_VERSION = 1
HEARTBEAT_SECONDS = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
Event = dict[str, Any]


class State(enum.StrEnum):
    """What the trainer writes. `DIED` is never written: the reader infers it."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    DIED = "died"


class Kind(enum.StrEnum):
    """Event kinds. STEP, EPOCH and EVAL hold only what a repetition must reproduce; times go to PERF.

    `epoch` is everywhere, as in status.json, the number of epochs that are finished there: 0 in the steps of the first
    epoch, 1 in the rows that close it.
    """

    START = "start"  # recipe, world_size, steps, epochs, resumed
    RESUME = "resume"  # step, closed: which rows before this line are void (see live_rows); exact, differences
    STEP = "step"  # step, epoch, progress, lr, loss, cross_entropy, gate_l1, error, inactive
    EPOCH = "epoch"  # epoch, step, train_loss, train_error
    EVAL = "eval"  # epoch, step, split, top1_error, top5_error (more than 5 classes), loss, samples
    PERF = "perf"  # step, images_per_s, step_ms, data_ms, rss, gpu_memory, eta_s
    GATES = "gates"  # epoch, step, file
    CHECKPOINT = "checkpoint"  # step, epoch, path, bytes, ms, best
    ALERT = "alert"  # level: info | warning | error, text
    END = "end"  # state, reason, step


METRIC_KINDS = frozenset({Kind.STEP, Kind.EPOCH, Kind.EVAL})
_CLOCK_KEYS = ("t", "crc")


@dataclass(frozen=True)
class RunDir:
    """Paths of one run. Making one touches nothing."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    def file(self, name: str) -> Path:
        return self.path / name

    recipe = property(lambda self: self.path / "recipe.yaml")
    env = property(lambda self: self.path / "env.json")
    git = property(lambda self: self.path / "git.json")
    data = property(lambda self: self.path / "data.json")
    model = property(lambda self: self.path / "model.json")
    argv = property(lambda self: self.path / "argv.json")
    status = property(lambda self: self.path / "status.json")
    events = property(lambda self: self.path / "events.jsonl")
    gates = property(lambda self: self.path / "gates")
    metrics = property(lambda self: self.path / "metrics.json")
    checkpoints = property(lambda self: self.path / "checkpoints")
    last = property(lambda self: self.path / "last.json")
    best = property(lambda self: self.path / "best.json")
    control = property(lambda self: self.path / "control")
    log = property(lambda self: self.path / "log.txt")
    verdict = property(lambda self: self.path / "verdict.json")


def create_run(runs: Path, recipe_name: str) -> RunDir:
    """Make `runs/<utc>-<recipe>-<id>/`, new and empty."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    run = RunDir(runs / f"{stamp}-{checked_name(recipe_name, 'name')}-{secrets.token_hex(3)}")
    run.path.mkdir(parents=True)
    return run


def write_json(path: Path, value: Mapping[str, Any], *, point: str = "json") -> None:
    """Write a JSON object atomically, with this format's schema version."""
    document = {"schema_version": SCHEMA_VERSION, **value}
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    try:
        data = orjson.dumps(document, option=options)
    except TypeError:
        data = orjson.dumps(as_utf8(document), option=options)
    atomic_write(path, data, point=point)


def as_utf8(value: Any) -> Any:
    """The value with each byte of a name that is not UTF-8 spelt out (`\\xff`): JSON holds only text."""
    if isinstance(value, str):
        escaped = all("\udc80" <= letter <= "\udcff" or not "\ud800" <= letter <= "\udfff" for letter in value)
        return value.encode("utf-8", "surrogateescape" if escaped else "backslashreplace").decode(
            "utf-8", "backslashreplace"
        )
    if isinstance(value, Mapping):
        return {as_utf8(key): as_utf8(item) for key, item in value.items()}
    return [as_utf8(item) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises IntegrityError where it is no file, no object or from a newer schema."""
    try:
        value = orjson.loads(read_bounded(path))
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{path}: holds a {type(value).__name__} where an object is expected")
    version = value.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise IntegrityError(
            f"{path}: schema version {version} is newer than {SCHEMA_VERSION}, the newest this release reads: upgrade"
        )
    return value


# --- status ---------------------------------------------------------------------------------------------------------


@dataclass
class Status:
    """status.json: who runs it and how far it is. Times are seconds since the epoch, UTC."""

    state: str = State.QUEUED
    reason: str = ""
    exit_code: int | None = None
    note: str = ""  # e.g. "not exact from step 40: ..."
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    start_token: float = field(default_factory=lambda: process_start(os.getpid()))
    boot: str = field(default_factory=lambda: boot_id())
    started: float = field(default_factory=time.time)
    heartbeat: float = field(default_factory=time.time)
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0


def process_start(pid: int) -> float:
    """Start time of a process, which with pid and boot names it for good (0.0: there is none, or it has ended).

    On Linux in seconds since the machine came up: the start by the wall clock moves whenever that clock is set.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return 0.0
        return float(process.create_time()) if not _BOOT_ID.exists() else _start_after_boot(pid)
    except (psutil.Error, OSError):
        return 0.0


def _start_after_boot(pid: int) -> float:
    """Field 22 of /proc/PID/stat; the name before it, in parentheses, may hold anything."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    """Names the time since this machine came up ('' where the system gives no such name)."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def is_process(pid: int, start_token: float, boot: str) -> bool:
    """Whether the process that was recorded by these three still lives on this machine."""
    return boot == boot_id() and start_token > 0 and process_start(pid) == start_token


def write_status(run: RunDir, status: Status) -> None:
    write_json(run.status, asdict(status), point="status")


def read_status(run: RunDir) -> Status:
    """The status as written. Raises FileNotFoundError (no run) or IntegrityError."""
    known = Status.__dataclass_fields__
    return Status(**{key: value for key, value in read_json(run.status).items() if key in known})


def is_alive(status: Status) -> bool:
    """Whether the writer still lives: by pid and start token here, by heartbeat from another host."""
    if status.host != socket.gethostname():
        return time.time() - status.heartbeat < 12 * HEARTBEAT_SECONDS
    return is_process(status.pid, status.start_token, status.boot)


def inferred_state(status: Status) -> State:
    """The state a reader shows: a run that says `running` while its writer is gone has died."""
    state = State(status.state)
    return State.DIED if state is State.RUNNING and not is_alive(status) else state


# --- events ---------------------------------------------------------------------------------------------------------


def encode_event(kind: str, fields: Mapping[str, Any], *, now: float | None = None) -> bytes:
    """One line of the log: JSON, NaN and infinities as null plus `nonfinite`; last the CRC-32 of what precedes it."""
    event: Event = {"kind": str(kind), **fields, "t": time.time() if now is None else now}
    nonfinite = {
        key: repr(value) for key, value in event.items() if isinstance(value, float) and not math.isfinite(value)
    }
    if nonfinite:
        event["nonfinite"] = nonfinite
    body = orjson.dumps(event)[:-1]
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def decode_event(line: bytes) -> Event | None:
    """The event of one line without its newline, or None where the line is damaged."""
    body, mark, tail = line.rpartition(b',"crc":"')
    if not mark or len(tail) != 10 or tail[8:] != b'"}' or tail[:8] != b"%08x" % zlib.crc32(body):
        return None
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


class EventWriter:
    """Appends to events.jsonl: one os.write a line on an O_APPEND descriptor, a torn tail cut off at opening."""

    def __init__(self, run: RunDir) -> None:
        self.path = run.events
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._cut_torn_tail()

    def _cut_torn_tail(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if size == 0 or os.pread(self._descriptor, 1, size - 1) == b"\n":
            return
        start = max(0, size - (1 << 20))
        os.ftruncate(self._descriptor, start + os.pread(self._descriptor, size - start, start).rfind(b"\n") + 1)

    def append(self, kind: str, **fields: Any) -> None:
        self.append_lines([encode_event(kind, fields)])

    def append_lines(self, lines: Iterable[bytes]) -> None:
        """Write whole lines in one call; where the disk refuses, none of them stays (ResourceError)."""
        data = b"".join(lines)
        size = os.fstat(self._descriptor).st_size
        try:
            write_all(self._descriptor, data)
        except OSError as error:
            os.ftruncate(self._descriptor, size)
            raise disk_error(error, self.path, len(data)) from error

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class EventReader:
    """Follows a log that may be growing: each `poll` returns the new complete events.

    Damaged lines are skipped and their offsets kept in `skipped`; a file that shrank or was replaced is read anew
    (`restarted` turns true for that poll); an absent file is an empty one.
    """

    def __init__(self, path: Path, *, chunk: int = 8 << 20) -> None:
        self.path = path
        self.offset = 0
        self.skipped: list[int] = []
        self.restarted = False
        self.behind = False  # whether the last poll ended at its chunk, so that complete lines may wait past it
        self._chunk = chunk
        self._inode: tuple[int, int] | None = None

    def poll(self) -> list[Event]:
        """New events since the last call; reads at most one chunk (call again while `behind`)."""
        self.restarted = self.behind = False
        try:
            with open_regular(self.path) as file:
                self._notice_replacement(os.fstat(file.fileno()))
                file.seek(self.offset)
                data = file.read(self._chunk)
        except FileNotFoundError:
            return []
        complete = data.rfind(b"\n") + 1
        self.behind = len(data) == self._chunk
        if self.behind and not complete:  # no line of ours is that long: pass over it, or it would be read for ever
            self.skipped.append(self.offset)
            complete = len(data)
            data = b""
        events = list(self._decode(data[:complete]))
        self.offset += complete
        return events

    def _notice_replacement(self, facts: os.stat_result) -> None:
        inode = (facts.st_dev, facts.st_ino)
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
            offset += len(line)


def read_events(run: RunDir) -> list[Event]:
    """All complete, undamaged events of a run."""
    reader = EventReader(run.events)
    events = reader.poll()
    while reader.behind:
        events += reader.poll()
    return events


def live_rows(events: Iterable[Event]) -> list[Event]:
    """The metric rows that count: those that a resume replayed are dropped, so that no step stands twice.

    A resume at a step keeps the rows up to it; where it says `closed: false`, the epoch that ends at this step was not
    closed, and its EPOCH and EVAL rows come again.
    """
    rows: list[Event] = []
    for event in events:
        if event["kind"] == Kind.RESUME:
            rows = [row for row in rows if _survives(row, event)]
        elif event["kind"] in METRIC_KINDS:
            rows.append(event)
    return rows


def _survives(row: Event, resume: Event) -> bool:
    if row["step"] != resume["step"]:
        return bool(row["step"] < resume["step"])
    return row["kind"] == Kind.STEP or bool(resume.get("closed", True))


def metric_digest(events: Iterable[Event]) -> str:
    """SHA-256 over the metric rows without their clock: equal for two runs that computed the same."""
    digest = hashlib.sha256()
    for row in live_rows(events):
        digest.update(orjson.dumps({k: v for k, v in row.items() if k not in _CLOCK_KEYS}, option=orjson.OPT_SORT_KEYS))
        digest.update(b"\n")
    return digest.hexdigest()
