"""Who writes a run and how far it is (status.json), and what a reader infers from it."""

from __future__ import annotations

import enum
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.process import boot_id, is_process, process_start

HEARTBEAT_SECONDS = 5.0
_COUNTS = ("epoch", "epochs", "step", "steps")


class State(enum.StrEnum):
    """What the trainer writes. `DIED` is never written: the reader infers it."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    DIED = "died"


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
    paused: float = 0.0  # seconds between its starts, in which nobody ran it
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    # the last of each figure that a script logged: its training may have no evaluation
    logged: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it ran: from its start to its last sign of life, without its stops."""
        return max(0.0, self.heartbeat - self.started - self.paused)


def write_status(run: RunDir, status: Status) -> None:
    write_json(run.status, asdict(status), point="status")


def read_status(run: RunDir) -> Status:
    """The status as written. Raises FileNotFoundError (no run) or IntegrityError."""
    known = Status.__dataclass_fields__
    # A field that a newer release added is passed over, and one that an older one lacks has its
    # default.
    found = {key: value for key, value in read_json(run.status).items() if key in known}
    # scripts of an older release could log a step that is no number: it says nothing
    for key in _COUNTS:
        if not isinstance(found.get(key, 0), int | float):
            del found[key]
    if not isinstance(found.get("logged", {}), dict):
        del found["logged"]
    return Status(**found)


def is_alive(status: Status) -> bool:
    """Whether the writer still lives: by pid and start token here,
    by heartbeat from another host.
    """
    if status.host != socket.gethostname():
        # A pid says nothing from another machine. Twelve heartbeats: clocks differ, and a network
        # disk may show a file late.
        return time.time() - status.heartbeat < 12 * HEARTBEAT_SECONDS
    return is_process(status.pid, status.start_token, status.boot)


def inferred_state(status: Status) -> State:
    """The state a reader shows: a run that says `running` while its writer is gone has died."""
    state = State(status.state)
    return State.DIED if state is State.RUNNING and not is_alive(status) else state
