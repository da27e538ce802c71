"""A run whose node was lost: its lock names another host, which only a scheduler may pass over.

    python -m dgcctl.core.launch.lost_node RUN

is what a batch script calls before it trains: it waits until the trainer of that node has given no
sign for a minute, and frees its lock.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dgc.errors import IntegrityError
from dgc.run.lock import lock_path, read_owner
from dgc.run.paths import RunDir
from dgc.run.process import is_process
from dgc.run.status import is_alive, read_status

_POLL_SECONDS = 0.5


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


def wait_and_free(run: RunDir, pause: Callable[[float], None] = time.sleep) -> bool:
    """Free the lock of a lost node as soon as that may be done; whether there was one.

    A dead trainer's lock of this very host goes too: the first rank may train on another one, and
    could not see that it is dead.
    """
    while (owner := read_owner(run)) and _lives(run, owner):
        # a trainer that ends by itself frees its lock, and one that does not falls silent
        pause(_POLL_SECONDS)
    if owner and owner.get("host") == socket.gethostname():
        lock_path(run).unlink(missing_ok=True)
        return False
    return free_lost_lock(run)


def _lives(run: RunDir, owner: Mapping[str, Any]) -> bool:
    if owner.get("host") == socket.gethostname():
        return is_process(
            int(owner.get("pid", 0)), float(owner.get("start_token", 0)), str(owner.get("boot", ""))
        )
    return run.status.exists() and is_alive(read_status(run))


def main(arguments: Sequence[str], say: Callable[[str], None] = print) -> int:
    """Always 0: what else is wrong with the run, its trainer says."""
    run = RunDir(Path(arguments[0]))
    try:
        if wait_and_free(run):
            say(f"run {run.id}: the node that had it is lost")
    except (OSError, IntegrityError) as error:
        say(f"run {run.id}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
