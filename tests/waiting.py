"""Waiting in tests: for a state, never for a time. GUARD only ends what hangs; nothing may come
near it.

A wait names the process whose doing it awaits (`by`): when that process has ended, what it was to
do will not happen any more, so the wait ends at once and says how the process ended. Every loop of
this kind stands here, and tests/contract/test_suite.py looks that no other file has one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

GUARD = 600.0  # seconds; the longest of these waits usually takes some ten seconds
WORDS = 3000  # of what a process said last, as much as a failed test shows


class Awaited(Protocol):
    """A process that may have ended: a Popen, and whatever stands for one."""

    def poll(self) -> int | None: ...


class Patience:
    """What a loop asks before it looks once more; AssertionError where waiting is in vain."""

    def __init__(self, what: str, by: Awaited | None) -> None:
        self.what, self.by = what, by
        self.until = time.monotonic() + GUARD
        self.has_ended = False

    def check(self) -> None:
        # the state may have come between the last look and the end: the loop looks once more
        assert not self.has_ended, f"{self.what} did not happen: the process {ending(self.by)}"
        self.has_ended = self.by is not None and self.by.poll() is not None
        assert time.monotonic() < self.until, (
            f"waited {GUARD:.0f} s in vain: {self.what} did not happen{last_words(self.by)}"
        )


def wait_for(
    holds: Callable[[], object], what: str, *, by: Awaited | None, pause: float = 0.01
) -> None:
    """Until `holds()` is true. `by` is the process that is to bring it about; None where nobody
    else is (a thread of ours, or a process whose end is what is awaited).
    """
    patience = Patience(what, by)
    while not holds():
        patience.check()
        time.sleep(pause)


def wait_for_file(path: Path, *, by: Awaited | None) -> None:
    wait_for(path.exists, f"{path} appearing", by=by)


def wait_for_text(path: Path, *, by: Awaited | None) -> str:
    """What another process wrote there, once there is anything (a short text is written at once)."""
    wait_for(lambda: path.exists() and path.stat().st_size > 0, f"{path} being written", by=by)
    return path.read_text()


def wait_for_all(processes: Sequence[subprocess.Popen[Any]]) -> None:
    """Until all of them have ended well. One that fails ends the others, which may wait for it."""

    def none_is_left() -> bool:
        codes = [process.poll() for process in processes]
        failed = [process for process in processes if process.poll()]
        assert not failed, f"process {processes.index(failed[0])} {ending(failed[0])}"
        return None not in codes

    try:
        wait_for(none_is_left, "the end of the processes", by=None, pause=0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def ending(process: Any) -> str:
    """How a process ended, and what it said last."""
    code = process.poll()
    how = f"exit code {code}" if code is None or code >= 0 else f"signal {_name(-code)}"
    return f"had ended ({how}){last_words(process)}"


def last_words(process: Any) -> str:
    if process is None:
        return ""
    if hasattr(process, "last_words"):
        words = process.last_words()
    else:
        pipes = [getattr(process, name, None) for name in ("stderr", "stdout")]
        words = "".join(_left_in(pipe) for pipe in pipes if pipe)
    return f"; it said: {words[-WORDS:]}" if words else ""


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _left_in(pipe: IO[Any]) -> str:
    """What lies in a pipe now; its other end may still be open in a child of a child."""
    descriptor, parts = pipe.fileno(), []
    os.set_blocking(descriptor, False)
    try:
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except BlockingIOError:
        pass
    finally:
        os.set_blocking(descriptor, True)
    return b"".join(parts).decode(errors="replace")
