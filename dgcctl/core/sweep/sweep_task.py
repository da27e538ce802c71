"""`python -m dgcctl.core.sweep.sweep_task SWEEP TRIAL`: one trial of a sweep, as a Slurm task."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dgc.errors import DgcError, ExitCode
from dgcctl.core.launch import slurm_array
from dgcctl.core.launch.launcher import is_running
from dgcctl.core.launch.lost_node import free_lost_lock
from dgcctl.core.sweep.plan import Sweep, Trial, TrialState, forget_unbegun, open_sweep, prepare
from dgcctl.core.sweep.pool import TRAINER, Signals

_POLL_SECONDS = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def run_trial(
    sweep: Sweep,
    trial: Trial,
    trainer: Sequence[str] = TRAINER,
    say: Callable[[str], None] = print,
) -> int:
    """Train it from where it is; its exit code, 75 where Slurm's warning (USR1) ended it."""
    run = sweep.run_dir(trial)
    with Signals(SIGNALS) as signals:
        # The trainer of a node that was lost counts as living until its heartbeat is a minute old.
        while sweep.state(trial) is TrialState.RUNNING and not signals.received:
            time.sleep(_POLL_SECONDS)
        if sweep.state(trial) is TrialState.DONE:
            return int(ExitCode.DONE)
        if signals.received:
            return _ended_by(signals.received)
        if free_lost_lock(run):
            say(f"trial {trial.index}: the node that had it is lost")
        run, resume = prepare(sweep, trial)
        say(f"trial {trial.index}: {'resumed' if resume else 'started'} ({trial.run})")
        command = [*trainer, "--run-dir", str(run.path), *(["--resume"] if resume else [])]
        with sweep.log(trial).open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        sweep.note_start(trial, process.pid)
        told = False
        while process.poll() is None:
            if signals.received and not told:
                # one that has not taken its run up has nothing to save, and no handler yet
                number = signals.received if is_running(run) else signal.SIGKILL
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                told = True
            time.sleep(_POLL_SECONDS)
        if signals.received:
            forget_unbegun(sweep, trial)
            if sweep.state(trial) is not TrialState.DONE:
                return _ended_by(signals.received)
    say(f"trial {trial.index}: {sweep.state(trial)}, exit code {process.returncode}")
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _ended_by(number: int) -> int:
    if number == signal.SIGUSR1:
        return int(ExitCode.PREEMPTED)
    return int(ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED)


def main(arguments: Sequence[str], say: Callable[[str], None] = print) -> int:
    """What it says goes to the task's file, slurm-JOB_TASK.out beside the plan."""
    try:
        found = open_sweep(Path(arguments[0]))
        code = run_trial(found, found.plan.trials[int(arguments[1])])
    except DgcError as error:
        say(f"error: {error}")
        return int(error.exit_code)
    if code == ExitCode.PREEMPTED:
        say(slurm_array.queue_again())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
