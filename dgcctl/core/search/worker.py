"""One worker of a search: takes trials, trains them, tells Optuna each evaluation, and ends early
what its pruner gives up.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dgc.errors import ExitCode
from dgc.run.events import EventKind
from dgc.run.metrics import RESULTS
from dgc.run.status import State, Status, read_status, write_status
from dgcctl.core.launch.launcher import is_running
from dgcctl.core.launch.lost_node import free_lost_lock
from dgcctl.core.runs.on_end import OnEnd
from dgcctl.core.runs.tail import Tail
from dgcctl.core.search.study import LACKS, Claim, Search
from dgcctl.core.sweep.plan import Sweep, TrialState, forget_unbegun, prepare
from dgcctl.core.sweep.pool import STOPPING, TRAINER, Signals

_POLL_SECONDS = 0.1
_CODES: dict[int, int] = {
    signal.SIGINT: int(ExitCode.INTERRUPTED),
    signal.SIGTERM: int(ExitCode.TERMINATED),
    signal.SIGUSR1: int(ExitCode.PREEMPTED),
}
_STOP = (
    "early_stop"  # Optuna keeps the reason, so that a killed worker's successor stops the run too
)


@dataclass
class SearchOutcome:
    """How a call of `work` ended: trials it has left without a result, the signal's code."""

    left: list[int] = field(default_factory=list)
    interrupted: int = 0
    lacking: str = ""  # why the search stopped: a trial had no such figure


def work(
    search: Search,
    *,
    trials: int,
    trainer: Sequence[str] = TRAINER,
    say: Callable[[str], None] = print,
    on_end: str | None = None,
    most: int | None = None,
    signals: Sequence[signal.Signals] = STOPPING,
) -> SearchOutcome:
    """Train until the search has so many trials, and nobody's is left, or `most` got their result
    here. A signal stops the trainer gently; calling again goes on. `on_end`: a command that is told
    of each trial's end.
    """
    outcome, ends = SearchOutcome(), OnEnd(on_end, say)
    passed: set[int] = set()
    ended = 0
    with Signals(signals) as heard:
        while not heard.received and ended != most:
            # others would train as long, and be as useless
            outcome.lacking = search.lacking()
            if outcome.lacking:
                break
            claim = search.claim(trials, frozenset(passed))
            # no trial is free: others have them all, or all are done
            if claim is None:
                break
            try:
                at_work = _AtWork(search, claim, trainer, say, heard)
                if at_work.run():
                    ended += 1
                else:
                    passed.add(claim.number)
                    outcome.left.append(claim.trial.index)
                ends.begin(at_work.dir)
                ends.look()
            # whatever came: a trial that is not released waits for the end of this process
            finally:
                claim.release()
        outcome.interrupted = _CODES.get(heard.received, 0)
    ends.finish()
    return outcome


class _AtWork:
    """One trial, from where it is to its result."""

    def __init__(
        self,
        search: Search,
        claim: Claim,
        trainer: Sequence[str],
        say: Callable[[str], None],
        signals: Signals,
    ) -> None:
        self.search, self.claim, self.trainer, self.say = search, claim, trainer, say
        self.signals = signals
        self.sweep: Sweep = search.sweep()
        self.dir = self.sweep.run_dir(claim.trial)
        self.optuna_trial = search.handle(claim.number)
        # what an earlier worker reported is not reported again: Optuna takes each epoch once
        self.told = set(self._frozen().intermediate_values)
        self.figures: set[str] = set()  # of all evaluations
        self.reason = str(self._frozen().user_attrs.get(_STOP, ""))

    def _frozen(self) -> Any:
        return self.search.study.get_trials(deepcopy=False)[self.claim.number]

    def run(self) -> bool:
        """Whether the trial has its result now."""
        # the worker before may have been killed between a report and what it came to
        if self.told and not self.reason:
            self._ask_pruner()
        process = None
        if self.sweep.state(self.claim.trial) is not TrialState.RUNNING and not self.reason:
            process = self._start()
        if not self._watched(process):
            return False
        # a trainer that somebody left behind, and that ended without a result: it goes on here
        if process is None and not self.reason:
            state = self.sweep.state(self.claim.trial)
            process = self._start() if state is TrialState.DIED else None
            if process is not None and not self._watched(process):
                return False
        return self._finish()

    def _watched(self, process: subprocess.Popen[bytes] | None) -> bool:
        """Report until the trainer ends; False where a signal came before that."""
        tail = Tail(self.dir)
        while self._goes_on(process):
            if self.signals.received:
                self._pass_on(process)
                # what the trial has so far is saved; who goes on resumes it
                return False
            self._report(tail)
            time.sleep(_POLL_SECONDS)
        # once more: the last evaluation came after the last look
        self._report(tail)
        return True

    def _start(self) -> subprocess.Popen[bytes] | None:
        trial = self.claim.trial
        if self.sweep.state(trial) in (TrialState.DONE, TrialState.FAILED):
            return None
        # a node that is gone cannot free its lock: Slurm says that it gave the task to us
        if os.environ.get("SLURM_JOB_ID") and free_lost_lock(self.dir):
            self.say(f"trial {trial.index}: the node that had it is lost")
        run, resume = prepare(self.sweep, trial)
        begun = "resumed" if resume else "started"
        self.say(f"trial {trial.index}: {begun} ({' '.join(trial.overrides)})")
        command = [*self.trainer, "--run-dir", str(run.path), *(["--resume"] if resume else [])]
        with self.sweep.log(trial).open("ab") as log:
            # Ctrl-C is for us: we pass it on, and the trainer saves before it leaves
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.sweep.note_start(trial, process.pid)
        return process

    def _goes_on(self, process: subprocess.Popen[bytes] | None) -> bool:
        if process is not None:
            return process.poll() is None
        # a trainer that a worker before us left behind
        return self.sweep.state(self.claim.trial) is TrialState.RUNNING

    def _report(self, tail: Tail) -> None:
        """Tell each evaluation once, in order: after a resume the log has some again."""
        if not self.dir.events.exists():
            return
        for event in tail.poll().events:
            value, epoch = event.get(self.search.asked.metric), event.get("epoch")
            if event["kind"] != EventKind.EVAL:
                continue
            self.figures |= set(event) & set(RESULTS)
            if epoch in self.told or self.reason:
                continue
            # NaN is no figure that a search could compare
            if isinstance(value, int | float) and math.isfinite(value):
                self.told.add(epoch)
                self.optuna_trial.report(float(value), epoch)
                self._ask_pruner()
        if self.reason and self.sweep.state(self.claim.trial) is TrialState.RUNNING:
            # asked as the dashboard asks: the trainer saves, and its own words stay true
            self.dir.control.mkdir(exist_ok=True)
            (self.dir.control / "stop").touch()

    def _ask_pruner(self) -> None:
        if self.optuna_trial.should_prune():
            epoch = max(self.told)
            value = self._frozen().intermediate_values[epoch]
            self.reason = (
                f"stopped early by the search {self.search.asked.id} ({self.search.asked.pruner}):"
                f" {self.search.asked.metric} {value:.6g} after epoch {epoch}"
            )
            self.optuna_trial.set_user_attr(_STOP, self.reason)

    def _finish(self) -> bool:
        states = self.search.optuna.trial.TrialState
        index, number = self.claim.trial.index, self.claim.number
        if self.reason:
            self._write_reason()
            self.say(f"trial {index}: {self.reason}")
            self.search.study.tell(number, state=states.PRUNED)
            return True
        state = self.sweep.state(self.claim.trial)
        values = self._frozen().intermediate_values
        if state is TrialState.DONE and values:
            # the last evaluation, not the best: the trial is judged as a run is
            value = values[max(values)]
            self.search.study.tell(number, value)
            self.say(f"trial {index}: done, {self.search.asked.metric} {value:.6g}")
            return True
        log = self.sweep.log(self.claim.trial)
        if state in (TrialState.FAILED, TrialState.DONE):
            # done without a figure failed as well, for the search
            if state is TrialState.DONE:
                self._note_lack()
            self.search.study.tell(number, state=states.FAIL)
            self.say(f"trial {index}: {state}, no {self.search.asked.metric} (log: {log})")
            return True
        self.say(f"trial {index}: {state} (log: {log}); the same command again goes on with it")
        return False

    def _note_lack(self) -> None:
        """Remember that the evaluations have no such figure; one that is never finite is there."""
        metric = self.search.asked.metric
        if metric not in self.figures:
            text = (
                f"trial {self.claim.trial.index} ended without {metric}: its evaluations have"
                f" {', '.join(sorted(self.figures)) or 'no figures'}: give one of them as --metric"
            )
            self.optuna_trial.set_user_attr(LACKS, text)

    def _write_reason(self) -> None:
        """The run says why it ended: the trainer, which was asked by a file, cannot know."""
        with contextlib.suppress(FileNotFoundError):
            status: Status = read_status(self.dir)
            # one that had finished before it heard has nothing to explain
            if status.state != State.DONE:
                status.state, status.reason = State.STOPPED, self.reason
                write_status(self.dir, status)

    def _pass_on(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is None:
            return
        # before the trainer has taken its run up there is nothing to save
        number = self.signals.received if is_running(self.dir) else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait()
        forget_unbegun(self.sweep, self.claim.trial)
