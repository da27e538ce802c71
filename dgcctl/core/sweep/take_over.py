"""A run whose node was lost: its lock names another host, which only a scheduler may pass over."""

from __future__ import annotations

import socket

from dgc.run.lock import lock_path, read_owner
from dgc.run.paths import RunDir
from dgc.run.status import is_alive, read_status


def free_lost_lock(run: RunDir) -> bool:
    """Remove the lock of another host whose trainer has given no sign for a minute; whether it did.

    For who knows that no other may have this run, as the task that Slurm queued again knows: a
    trainer that was cut off from Slurm alone still writes its heartbeat here, and keeps its lock.
    """
    owner = read_owner(run)
    if owner is None or owner.get("host") == socket.gethostname():
        return False
    if run.status.exists() and is_alive(read_status(run)):
        return False
    lock_path(run).unlink(missing_ok=True)
    return True
