"""Running the trials of a sweep: so many at once, one GPU each where there are several, failures
left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import filelock

from dgc.errors import ExitCode, LockedError
from dgc.run.code_record import sentences
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgcctl.core.launch.launcher import is_running
from dgcctl.core.runs.on_end import OnEnd
from dgcctl.core.sweep.plan import Sweep, Trial, TrialState, due, forget_unbegun, prepare

TRAINER = (sys.executable, "-m", "dgc.train")
STOPPING = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.1


@dataclass
class SweepOutcome:
    """How a call of `run_sweep` ended."""

    done: list[int] = field(default_factory=list)
    failed: dict[int, int] = field(default_factory=dict)
    interrupted: int = 0


@dataclass
class _Job:
    trial: Trial
    # None: another process runs this trial, its status is watched
    process: subprocess.Popen[bytes] | None
    slot: int


class Signals:
    """While entered, these signals are remembered instead of ending this process."""

    def __init__(self, numbers: Sequence[signal.Signals] = STOPPING) -> None:
        self.numbers = numbers
        self.received = 0

    def __enter__(self) -> Signals:
        self._before = {number: signal.signal(number, self._note) for number in self.numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number


class Pool:
    """`jobs` slots; each runs one trial at a time."""

    def __init__(
        self,
        sweep: Sweep,
        jobs: int,
        gpus: Sequence[str],
        trainer: Sequence[str],
        say: Callable[[str], None],
        on_end: OnEnd,
    ):
        self.sweep, self.trainer, self.say = sweep, trainer, say
        self.gpus, self.on_end = gpus, on_end
        self.free = list(range(jobs))
        self.active: list[_Job] = []
        self.outcome = SweepOutcome()
        self.recorded = False

    def start(self, trial: Trial) -> None:
        slot = self.free.pop(0)
        # A trainer that an earlier call of this sweep left behind: it is waited for in this slot,
        # and not started a second time.
        if self.sweep.state(trial) is TrialState.RUNNING:
            self.say(f"trial {trial.index}: already runs ({trial.run}), waiting for it")
            self.active.append(_Job(trial, None, slot))
            return
        run, resume = prepare(self.sweep, trial)
        if not resume:
            self._say_what_was_recorded(run)
        self.say(
            f"trial {trial.index}: {'resumed' if resume else 'started'}"
            f" ({' '.join(trial.overrides)})"
        )
        command = [*self.trainer, "--run-dir", str(run.path), *(["--resume"] if resume else [])]
        with self.sweep.log(trial).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for us: we pass it on once, and each trainer saves before it leaves.
                start_new_session=True,
                env=self._env(slot),
            )
        self.sweep.note_start(trial, process.pid)
        self.active.append(_Job(trial, process, slot))

    def _say_what_was_recorded(self, run: RunDir) -> None:
        """Once for all trials: they stand on the same code."""
        if self.recorded:
            return
        self.recorded = True
        for level, sentence in sentences(read_json(run.git)):
            self.say(f"warning: {sentence}" if level == "warning" else sentence)

    def _env(self, slot: int) -> dict[str, str]:
        if not self.gpus:
            return dict(os.environ)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]}

    def collect(self) -> list[_Job]:
        """Take the jobs that ended out of their slots."""
        # a list first: taking jobs out while going through them would pass some over
        ended = [job for job in self.active if not self._runs(job)]
        for job in ended:
            self.active.remove(job)
            self.free.append(job.slot)
            self._note_end(job)
            self.on_end.begin(self.sweep.run_dir(job.trial))
        self.on_end.look()
        return ended

    def _runs(self, job: _Job) -> bool:
        if job.process is None:
            return self.sweep.state(job.trial) is TrialState.RUNNING
        return job.process.poll() is None

    def _note_end(self, job: _Job) -> None:
        state = self.sweep.state(job.trial)
        # Of a trial that another process runs only the record can tell how it ended.
        code = job.process.returncode if job.process else 0
        # Both: a trainer that was killed after it said that it was done has not ended well.
        if state is TrialState.DONE and code == 0:
            self.outcome.done.append(job.trial.index)
            self.say(f"trial {job.trial.index}: done")
            return
        self.outcome.failed[job.trial.index] = code
        self.say(
            f"trial {job.trial.index}: {state}, exit code {code} (log: {self.sweep.log(job.trial)})"
        )

    def stop(self, number: int) -> None:
        """Pass a signal on to the trainers, which save and leave, and wait for them."""
        for job in self.active:
            if job.process and job.process.poll() is None:
                # A trainer that has not taken its run up has nothing to save, and no handler yet
                # that would end it in an orderly way.
                begun = is_running(self.sweep.run_dir(job.trial))
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(job.process.pid, number if begun else signal.SIGKILL)
        # All are told before any is waited for: they save side by side, in the time of the
        # slowest.
        for job in self.active:
            if job.process:
                job.process.wait()
                forget_unbegun(self.sweep, job.trial)
                self.on_end.begin(self.sweep.run_dir(job.trial))
        self.outcome.interrupted = int(
            ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        )


def run_sweep(
    sweep: Sweep,
    *,
    jobs: int = 1,
    fail_fast: bool = False,
    retry_failed: bool = False,
    gpus: Sequence[str] = (),
    trainer: Sequence[str] = TRAINER,
    say: Callable[[str], None] = print,
    on_end: str | None = None,
) -> SweepOutcome:
    """Run what is due, each trial once in a call. A signal stops the trainers gently; calling again
    goes on. `on_end`: a command that is told of each trial's end.
    """
    waiting = due(sweep, retry_failed=retry_failed)
    ends = OnEnd(on_end, say)
    pool = Pool(sweep, jobs, gpus, trainer, say, ends)
    with _owned(sweep.path), Signals() as signals:
        # The state of each trial is in its run directory and not here, so that a sweep that is
        # killed at any point of this loop goes on from there.
        while (waiting or pool.active) and not signals.received:
            while waiting and pool.free:
                pool.start(waiting.pop(0))
            time.sleep(_POLL_SECONDS)
            pool.collect()
            # those that run are waited for; nothing new begins
            if fail_fast and pool.outcome.failed:
                waiting = []
        if signals.received:
            pool.stop(signals.received)
    ends.finish()
    return pool.outcome


@contextlib.contextmanager
def _owned(path: Path) -> Iterator[None]:
    """One process runs a sweep at a time (LockedError); the system frees the lock of a process that
    was killed.
    """
    # Held by a descriptor, unlike a run's lock: no child that could outlive us inherits it.
    lock = filelock.FileLock(path / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise LockedError(
            f"{path}: another process runs this sweep: wait for it, or end it first"
        ) from None
    try:
        yield
    finally:
        lock.release()


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs this process may use ([] where there is none),
    without torch.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() and name.strip() != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [
        str(index)
        for index, line in enumerate(listed.stdout.splitlines())
        if line.startswith("GPU ")
    ]
