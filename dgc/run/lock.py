"""One writer a run: lock.json names its owner by host, pid and start token. No torch.

The owner record is the lock, not a held descriptor: descriptors are inherited by data workers,
which may outlive a killed trainer for seconds. A file lock guards only the moment of looking at the
record and replacing it. That is why own code stands here: filelock, as every lock on a descriptor,
knows neither who holds it nor that a holder on a network disk is gone; it is what guards the
moment.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from dgc.errors import IntegrityError, LockedError
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.process import boot_id, is_process, process_start

_GUARD_SECONDS = 30.0


@contextlib.contextmanager
def run_lock(run: RunDir) -> Iterator[str]:
    """Own the run until the end of the block;
    yields a note where a dead owner's lock was taken over ('' if none).

    Raises LockedError naming the owner. A lock from another host is never taken over.
    """
    note = acquire(run)
    try:
        yield note
    finally:
        release(run)


def lock_path(run: RunDir) -> Path:
    return run.file("lock.json")


def acquire(run: RunDir) -> str:
    # To look and to write is one act under the guard; else two that find the same dead owner
    # would both take the run.
    with _guard(run):
        owner = read_owner(run)
        if owner is None:
            note = ""
        elif _lives(owner):
            raise LockedError(_refusal(run, owner))
        else:
            note = f"took over the lock of process {owner['pid']}, which is gone"
        write_json(lock_path(run), _own_record(), point="lock")
    return note


def release(run: RunDir) -> None:
    """Give the run back if it is ours; a run folder that vanished has nothing to give back."""
    if not run.path.is_dir():  # filelock would make it anew
        return
    with contextlib.suppress(OSError), _guard(run):
        owner = read_owner(run)
        # After a takeover the record is somebody else's, and not ours to remove.
        if owner and (owner.get("host"), owner.get("pid")) == (socket.gethostname(), os.getpid()):
            lock_path(run).unlink()


def read_owner(run: RunDir) -> dict[str, Any] | None:
    """Who holds the run: {host, boot, pid, start_token, since}, or None.
    A damaged record counts as none.
    """
    try:
        return read_json(lock_path(run))
    except (FileNotFoundError, IntegrityError):
        return None


def _guard(run: RunDir) -> filelock.BaseFileLock:
    return filelock.FileLock(run.file(".lock.guard"), timeout=_GUARD_SECONDS)


def _own_record() -> dict[str, Any]:
    # what an owner is known by for good: a pid is given
    # again, with the start time and the boot it is not
    pid, host = os.getpid(), socket.gethostname()
    return {
        "host": host,
        "boot": boot_id(),
        "pid": pid,
        "start_token": process_start(pid),
        "since": time.time(),
    }


def _lives(owner: dict[str, Any]) -> bool:
    # What runs on another machine cannot be seen from here. To wait for a person is the only safe
    # answer: two writers would spoil the run.
    if owner.get("host") != socket.gethostname():
        return True
    # Our own pid in a record that we did not write: a namesake, from before the machine or the
    # container was started anew.
    if owner.get("pid") == os.getpid():
        return False
    return is_process(
        int(owner.get("pid", 0)), float(owner.get("start_token", 0)), str(owner.get("boot", ""))
    )


def _refusal(run: RunDir, owner: dict[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(float(owner.get("since", 0))))
    line = (
        f"run {run.id} is in use by process {owner.get('pid')} on {owner.get('host')} since {since}"
    )
    if owner.get("host") != socket.gethostname():
        return f"{line}: if that process is gone, remove {lock_path(run)}"
    return f"{line}: wait for it, or end it with `dgcctl runs stop {run.id}`"
