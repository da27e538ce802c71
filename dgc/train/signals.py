"""Requests to stop: the first signal asks for finish-save-leave, a second one leaves at once. No
torch.

Installed before torch is imported, so that a signal during start-up is a request too.
"""

from __future__ import annotations

import enum
import multiprocessing
import os
import signal
import time
from types import FrameType

from dgc.errors import DgcError, ExitCode, InterruptedRunError, PreemptedError

# A launcher forwards what its process group already got, and Slurm sends SIGCONT+SIGTERM: a
# repetition within this time is the same request.
_SAME_REQUEST_SECONDS = 1.0
_CODES = {
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGUSR1: ExitCode.PREEMPTED,
}


class Stop(enum.IntEnum):
    """Why to stop; ranks agree on the largest."""

    NO = 0
    ASKED = 1  # control/stop, the dashboard's button
    PREEMPTED = 2  # SIGTERM, SIGUSR1
    INTERRUPTED = 3  # SIGINT

    def error(self, step: int, run_id: str, trust: str = "") -> DgcError:
        """The error that a run ends with once its state is saved. `trust`: what a command to go on
        has to say about code of the user's.
        """
        how = f"saved at step {step}; go on with `dgcctl resume {run_id}{trust}`"
        if self is Stop.PREEMPTED:
            return PreemptedError(f"preempted: {how}")
        if self is Stop.INTERRUPTED:
            return InterruptedRunError(f"interrupted: {how}")
        return InterruptedRunError(f"stopped on request: {how}")


class Signals:
    """Holds the request that signals have made."""

    def __init__(self) -> None:
        self.stop = Stop.NO
        self._first = 0.0

    def install(self) -> None:
        """Take over SIGTERM, SIGUSR1 and SIGINT;
        a closed terminal (SIGHUP) does not end a training.
        """
        for number in _CODES:
            signal.signal(number, self._receive)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def ignore(self) -> None:
        """From here on nothing is left to save: let the process end with the code it has."""
        for number in _CODES:
            signal.signal(number, signal.SIG_IGN)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.stop is Stop.NO:
            # the first request is only noted: the loop meets it between two steps
            self._first = now
            self.stop = Stop.INTERRUPTED if number == signal.SIGINT else Stop.PREEMPTED
        elif now - self._first > _SAME_REQUEST_SECONDS:
            leave_at_once(_CODES[signal.Signals(number)])


def leave_at_once(code: int) -> None:
    """End without saving or cleaning up, data workers included."""
    # os._exit runs no handler that would end them, and they would outlive us
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends (Linux),
    so that no rank outlives its launcher.
    """
    # psutil comes with it: only now, when the handlers stand
    from dgc.run.process import when_parent_ends

    parent = os.getppid()
    when_parent_ends(signal.SIGTERM)()
    if os.getppid() != parent:  # it ended between the two calls
        os._exit(ExitCode.TERMINATED)
