"""The end of a launcher whose ranks have ended in failure.

torchrun then takes leave of the other machines, over a connection on which it waits without a
bound: with a cable that was cut that is a quarter of an hour. Its ranks have said what happened by
then, so the launcher goes without the leave.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from dgc.errors import DgcError
from dgc.run.paths import RunDir
from dgc.run.status import read_status

# seconds for torchrun to end by itself, once none of its ranks is left; it needs one or two
LEAVE = 15.0
PAUSE = 0.5


class LauncherWatch:
    """Calls `leave` with the numbers of this machine's ranks where torchrun does not come to an end
    after they have failed; `failed` says of a rank whether it has.
    """

    def __init__(
        self,
        failed: Callable[[int], bool],
        leave: Callable[[list[int]], None],
        seconds: float = LEAVE,
    ) -> None:
        self._failed, self._leave, self._seconds = failed, leave, seconds
        self._ended = threading.Event()

    def __enter__(self) -> LauncherWatch:
        threading.Thread(target=self._watch, name="launcher's watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        ranks: set[int] = set()
        alone_since = time.monotonic()
        while not self._ended.wait(PAUSE):
            present = ranks_of_children()
            ranks |= present
            # ranks that ended well wait for those of other machines: that is torchrun's to do
            if present or not ranks or not any(map(self._failed, sorted(ranks))):
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > self._seconds:
                self._leave(sorted(ranks))
                return


def ranks_of_children() -> set[int]:
    """The numbers of the ranks that this process has started and that still run."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, ValueError):
            if child.status() != psutil.STATUS_ZOMBIE and (rank := child.environ().get("RANK")):
                found.add(int(rank))
    return found


def failure_since(run: RunDir, began: float, said: Callable[[int], str]) -> Callable[[int], bool]:
    """Whether a rank of a run has failed since `began`: its log says so (`said` is its error line),
    or the run's status, which the first rank writes.
    """

    def failed(rank: int) -> bool:
        with contextlib.suppress(OSError, DgcError):
            if rank and rank_log(run, rank).stat().st_mtime >= began and said(rank):
                return True
        with contextlib.suppress(OSError, DgcError):
            return bool(read_status(run).exit_code) and run.status.stat().st_mtime >= began
        return False

    return failed


def rank_log(run: RunDir, rank: int) -> Path:
    """Where a rank other than the first writes its errors."""
    return run.file("ranks") / f"rank-{rank}.err" if rank else run.log
