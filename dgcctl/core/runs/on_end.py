"""`--on-end COMMAND`: a command that is told of a run's end, by its environment.

It cannot harm the run. It starts when the run has ended, in a session of its own and without
standard input; of what it says 64 KiB are kept in on-end.txt of the run and the rest is read and
dropped; one that goes on too long is ended. However it ends, the run is as it was, and so is the
exit code of the command that trained: there is one line more on stderr.

`python -m dgcctl.core.runs.on_end RUN PID COMMAND` waits for a training that nobody watches.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from dgc import settings
from dgc.errors import DgcError
from dgc.run.files import atomic_write
from dgc.run.paths import RunDir
from dgcctl.core.runs.listing import read_run
from dgcctl.core.runs.tail import GOING

FILE = "on-end.txt"
_KEPT = 64 << 10
_POLL_SECONDS = 0.05
_LINE_LETTERS = 200
Say = Callable[[str], None]


def result_of(run: RunDir) -> dict[str, str]:
    """What the command finds in its environment."""
    seen = read_run(run)
    status = seen.status
    told = {
        settings.RUN: run.id,
        settings.RUN_PATH: str(run.path.absolute()),
        settings.RUN_NAME: seen.name,
        settings.RUN_STATE: seen.state,
        settings.RUN_REASON: seen.problem or status.reason,
        settings.RUN_EXIT_CODE: "" if status.exit_code is None else str(status.exit_code),
        settings.RUN_STEP: str(status.step),
        settings.RUN_EPOCH: str(status.epoch),
        settings.RUN_SECONDS: f"{status.seconds:.0f}",
        settings.RUN_TOP1_ERROR: str(seen.metrics.get("top1_error", "")),
        settings.RUN_METRICS: json.dumps(seen.metrics),
        # so that `dgcctl runs show "$DGCCTL_RUN"` finds it
        settings.RUNS_DIR: str(run.path.absolute().parent),
    }
    # no text of an environment can hold a zero
    return {name: text.replace("\0", "") for name, text in told.items()}


class Telling:
    """One command at work on one run."""

    def __init__(self, command: str, run: RunDir, seconds: float) -> None:
        self.run, self._seconds = run, seconds
        self._until = time.monotonic() + seconds
        self._said = bytearray()
        self._process = subprocess.Popen(
            # a shell, since the user wrote a command line; the run's
            # facts come by the environment, never as a part of that line
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **result_of(run)},
            start_new_session=True,
        )
        # what it starts may hold its output open for ever: so a thread reads, which nobody awaits
        self._reader = threading.Thread(target=self._read, name="on-end", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self._process.stdout
        with contextlib.suppress(OSError, ValueError):
            # read on and dropped: a pipe that nobody empties would hold the command up
            while stream is not None and (piece := os.read(stream.fileno(), 1 << 16)):
                self._said += piece[: max(0, _KEPT - len(self._said))]

    def outcome(self) -> str | None:
        """What became of it, in words; "" where it ended well, None while it goes on."""
        code = self._process.poll()
        if code is None and time.monotonic() < self._until:
            return None
        if code is None:
            self.kill()
            return self._keep(f"was ended after {self._seconds:g} s")
        # what it said last may still be on its way
        self._reader.join(1.0)
        if code < 0:
            return self._keep(f"was killed by signal {-code}")
        return self._keep(f"ended with exit code {code}" if code else "")

    def kill(self) -> None:
        """End it, with all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _keep(self, problem: str) -> str:
        text = bytes(self._said)
        # a disk that is full, or a run that is gone by now, is no concern of the run
        with contextlib.suppress(OSError, DgcError):
            # nothing said and nothing wrong: no file
            if text or problem:
                head = f"{problem}\n".encode() if problem else b""
                atomic_write(self.run.file(FILE), head + text)
        if not problem:
            return ""
        lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
        last = f" ({lines[-1].strip()[:_LINE_LETTERS]})" if lines else ""
        return f"--on-end of run {self.run.id}: {problem}{last}; the run is as it was"


class OnEnd:
    """The command of a whole call: begun for each run that ends, looked at now and then."""

    def __init__(self, command: str | None, warn: Say) -> None:
        self.command, self._warn = command or "", warn
        self._seconds = settings.on_end_seconds()
        self._at_work: list[Telling] = []

    def begin(self, run: RunDir) -> None:
        """Tell of a run that has ended. A run that is no more is not told of."""
        if not self.command or not run.status.exists():
            return
        try:
            self._at_work.append(Telling(self.command, run, self._seconds))
        except (OSError, ValueError) as error:  # no memory, an argument that is too long
            self._warn(f"--on-end of run {run.id}: cannot be started ({error})")

    def look(self) -> bool:
        """Say what has ended badly; whether some still go on."""
        # a copy: what has ended leaves the list
        for telling in list(self._at_work):
            outcome = telling.outcome()
            if outcome is not None:
                self._at_work.remove(telling)
            if outcome:
                self._warn(outcome)
        return bool(self._at_work)

    def finish(self) -> None:
        """Wait for all of them. Whoever interrupts this ends them."""
        # Ctrl-C while we wait is meant for the command, too
        try:
            while self.look():
                time.sleep(_POLL_SECONDS)
        finally:
            for telling in self._at_work:
                telling.kill()


def leave_behind(command: str | None, run: RunDir, pid: int) -> None:
    """Start a process that waits for a training which goes on without us, and tells of its end."""
    if command:
        # absolute: that process may be started with another working directory
        words = [str(run.path.absolute()), str(pid), command]
        subprocess.Popen(
            [sys.executable, "-m", "dgcctl.core.runs.on_end", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def wait_and_tell(run: RunDir, pid: int, command: str) -> None:
    """What that process does. Its one line is in on-end.txt."""
    with contextlib.suppress(psutil.Error):
        trainer = psutil.Process(pid)
        # a zombie has ended, and only its parent has not looked
        while trainer.is_running() and trainer.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.2)
    # the trainer's launcher may still have to write its end
    while read_run(run).state in GOING and read_run(run).state != "queued":
        time.sleep(0.2)
    on_end = OnEnd(command, lambda _line: None)
    on_end.begin(run)
    on_end.finish()


if __name__ == "__main__":
    wait_and_tell(RunDir(Path(sys.argv[1])), int(sys.argv[2]), sys.argv[3])
