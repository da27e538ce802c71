"""How far a script's run was when it died. Its status.json is as old as its last heartbeat; its log
is whole.
"""

from __future__ import annotations

import dataclasses
import os

from dgc.run.events import EventKind, EventReader, live_rows
from dgc.run.paths import RunDir
from dgc.run.script_arguments import OWN
from dgc.run.status import Status

_TAIL = 1 << 20  # bytes: thousands of steps, and read in milliseconds


def after_death(run: RunDir, status: Status) -> Status:
    """The status with step, epoch and the last figures as the end of the log says."""
    try:
        size = os.stat(run.events).st_size
    except OSError:
        return status
    reader = EventReader(run.events, chunk=_TAIL)
    # the line that is met in its middle is passed over like a damaged one
    reader.offset = max(0, size - _TAIL)
    rows = live_rows(reader.poll())
    if not rows:
        return status
    logged = dict(status.logged)
    for row in rows:
        if row["kind"] == EventKind.STEP:
            logged.update((key, value) for key, value in row.items() if key not in OWN)
    last = rows[-1]
    return dataclasses.replace(
        status, step=int(last["step"]), epoch=int(last.get("epoch") or 0), logged=logged
    )
