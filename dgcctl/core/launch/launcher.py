"""Start the processes of dgc, each in a process group of its own; pass signals on, reap it, say why
it ended.

Output of a training goes to RUN/log.txt, never through a pipe to us: a manager that dies cannot
block or kill it. One process is `python -m dgc.train`; several are started by torchrun without
restarts.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

import dgc
from dgc.errors import DgcError, InterruptedRunError, ResourceError, TerminatedError, UsageError
from dgc.run import provenance
from dgc.run.files import atomic_write, write_json
from dgc.run.paths import RunDir, create_run
from dgc.run.process import when_parent_ends
from dgc.run.status import State, Status, inferred_state, read_status, write_status

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
RANKS_STARTER = "dgc.train.launch"  # torchrun that ends in one line


@dataclass(frozen=True)
class RankOptions:
    """How many processes train, and where they meet: the options of torchrun. None of them set: one
    plain process.
    """

    nproc_per_node: str | None = None
    nnodes: str | None = None
    node_rank: int | None = None
    rdzv_endpoint: str | None = None
    rdzv_backend: str | None = None

    @property
    def torchrun(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def options(self) -> list[str]:
        """torchrun's own options. Raises UsageError for numbers that cannot be."""
        self._check()
        given = {
            key.replace("_", "-"): value for key, value in vars(self).items() if value is not None
        }
        given.setdefault("nproc-per-node", "1")
        if self.rdzv_backend is None and self.rdzv_endpoint is not None:
            given["rdzv-backend"] = "c10d"
        # several machines meet at an endpoint; one alone needs none, and torchrun finds a free port
        alone = [] if self.nnodes not in (None, "1") or self.rdzv_endpoint else ["--standalone"]
        return alone + [f"--{key}={value}" for key, value in given.items()]

    def _check(self) -> None:
        # auto and its like count devices, on the machine where torchrun runs
        if self.nproc_per_node not in (None, "auto", "gpu", "cpu") and not _positive(
            self.nproc_per_node
        ):
            raise UsageError(
                f"--nproc-per-node {self.nproc_per_node}: should be a number from 1, or auto"
            )
        if self.nnodes is not None and not all(map(_positive, self.nnodes.split(":"))):
            raise UsageError(f"--nnodes {self.nnodes}: should be a number from 1, or MIN:MAX")
        if self.nnodes not in (None, "1") and self.rdzv_endpoint is None:
            raise UsageError(
                f"--nnodes {self.nnodes} needs --rdzv-endpoint HOST:PORT, the same on every machine"
            )


def _positive(text: str | None) -> bool:
    return bool(text) and str(text).isdigit() and int(str(text)) > 0


def module_command(module: str, ranks: RankOptions | None = None) -> list[str]:
    """The start of a command that runs `python -m module`, under torchrun where ranks are asked
    for.
    """
    if ranks is None or not ranks.torchrun:
        return [sys.executable, "-m", module]
    return [*ranks_command(ranks), "-m", module]


def ranks_command(ranks: RankOptions) -> list[str]:
    """What starts several processes and waits for them; what each of them runs is to follow."""
    return [sys.executable, "-m", RANKS_STARTER, "--max-restarts=0", *ranks.options()]


# --- a new run ------------------------------------------------------------------------------------


def create(runs: Path, name: str, recipe_text: str, argv: Mapping[str, Any]) -> RunDir:
    """Make a run directory with its recipe, how it was asked for, and the code it runs with; its
    state is `queued`.
    """
    run = _new_folder(runs, name)
    try:
        atomic_write(run.recipe, recipe_text.encode(), point="recipe")
        # where it was asked for counts: relative paths of the recipe are from there
        write_json(
            run.argv, {"dgcctl": dgc.__version__, "cwd": str(Path.cwd()), **argv}, point="argv"
        )
        # the code of now: it may be edited before the trainer starts
        provenance.record_code(run)
        write_status(run, Status(state=State.QUEUED))
    except BaseException:  # half a run is none, and must not be listed as one
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    return run


def _new_folder(runs: Path, name: str) -> RunDir:
    try:
        return create_run(runs, name)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ResourceError(
            f"{runs}: cannot make a run directory here ({reason}): "
            "name another folder with --runs-dir or DGCCTL_RUNS_DIR"
        ) from error


# --- processes ------------------------------------------------------------------------------------


class Process:
    """A started process group. As a context manager it leaves no child behind, whatever happens."""

    def __init__(
        self, command: Sequence[str], *, output: IO[bytes] | int, env: Mapping[str, str], tied: bool
    ) -> None:
        self.command = list(command)
        self._popen = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            # one file for both: lines stay in the order in which they were said
            stderr=subprocess.STDOUT if output == subprocess.PIPE else output,
            env=dict(env),
            # A group of its own: Ctrl-C in our terminal would else reach the trainer twice, from
            # there and passed on by us.
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()) if tied else None,
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def poll(self) -> int | None:
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self._popen.wait(timeout)

    def lines(self) -> Iterator[str]:
        """What it says, line by line to its end (where its output is a pipe)."""
        for raw in self._popen.stdout or ():
            yield raw.decode("utf-8", errors="replace").rstrip()

    def ask(self, signum: int) -> None:
        """Pass a signal on to those who train: the ranks of a torchrun (it would not wait), or the
        process.
        """
        for process in self._trainers():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signum)

    def _trainers(self) -> list[psutil.Process]:
        try:
            own = psutil.Process(self.pid)
            ranks = own.children() if RANKS_STARTER in self.command else []
        except psutil.Error:
            return []
        # torchrun ends its ranks a moment after a signal, long before a checkpoint is written: so
        # they are told themselves, and it leaves when they have left.
        return ranks or [own]

    def end_now(self) -> None:
        """Kill the whole group: nothing in it has anything to save."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill_group(self, grace: float = 2.0) -> None:
        """End all that is left of the group: SIGTERM, then SIGKILL."""
        # twice: time to clean up first, and then no more
        for signum, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 1.0)):
            if not self._group_alive():
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signum)
            self._await_group(seconds)

    def _await_group(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._group_alive() and time.monotonic() < end:
            time.sleep(0.02)

    def _group_alive(self) -> bool:
        # A child that has ended stays in its group until somebody asks for its code.
        self._popen.poll()
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_group()


def _die_with(parent: int) -> Callable[[], None] | None:
    """Linux: have the kernel send SIGTERM (save and stop) to the child when its starter dies."""
    if not sys.platform.startswith("linux"):
        return None
    ask = when_parent_ends(signal.SIGTERM)

    def tie() -> None:
        # asked in the child, between fork and exec: only there it is about our own end
        ask()
        # The parent may have died between fork and the request above; nobody would tell us then.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return tie


def start_training(
    run: RunDir,
    command: Sequence[str],
    *,
    detach: bool = False,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a trainer on a run, its output appended to log.txt. Detached, it outlives us."""
    with run.log.open("ab") as log:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        # before the start, and flushed: `outcome` looks for the line to find what was said since
        log.write(os.fsencode(f"{stamp} start: {shlex.join(command)}\n"))
        log.flush()
        return Process(command, output=log, env=env or child_environment(), tied=not detach)


def child_environment(**extra: str | None) -> dict[str, str]:
    """Our environment, unbuffered and without colour, for a child whose output goes to a file."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    # of ours, it would speak against NO_COLOR
    env.pop("FORCE_COLOR", None)
    return {**env, **{key: value for key, value in extra.items() if value is not None}}


class SignalRelay:
    """Signals for us, and the process that they are meant for.

    A trainer that has not taken its run up would die of a signal with no word, so what comes then
    waits; but Ctrl-C ends it at once, because there is nothing to save.
    """

    def __init__(self) -> None:
        self.passed: list[int] = []
        self.gave_up = 0  # the signal that ended a process before it had begun
        self._waiting: list[int] = []
        self._process: Process | None = None
        self._run: RunDir | None = None

    def hear(self, signum: int, _: object = None) -> None:
        self._waiting.append(signum)
        self.deliver()

    def attach(self, process: Process, run: RunDir | None = None) -> None:
        """From now on signals go to this process; with a run, when it has taken that up."""
        self._process, self._run = process, run
        self.deliver()

    def deliver(self) -> None:
        """Pass on what waits, if it can be now: call it often."""
        process = self._process
        while process is not None and self._waiting:
            # Until status.json says that the trainer has taken the run up, its handlers may not
            # stand, and a SIGTERM would end it without a word. What came waits: `deliver` is
            # called again and again.
            if not self._begun():
                self._give_up(process)
                return
            # one at a time, in their order: a second SIGTERM means something else than the first
            signum = self._waiting.pop(0)
            self.passed.append(signum)
            # A trainer knows no SIGHUP: a terminal that was closed means save and stop.
            process.ask(signal.SIGTERM if signum == signal.SIGHUP else signum)

    def _begun(self) -> bool:
        return self._run is None or is_running(self._run)

    def _give_up(self, process: Process) -> None:
        # nothing is saved before the run is taken up, so there is nothing to wait for
        if signal.SIGINT in self._waiting and not self.gave_up:
            self.gave_up = signal.SIGINT
            process.end_now()

    def raise_if_given_up(self) -> None:
        """InterruptedRunError where Ctrl-C came before anything had begun."""
        if self.gave_up or (self._process is None and signal.SIGINT in self._waiting):
            raise InterruptedRunError("interrupted before the training began: nothing was changed")
        if self._process is None and self._waiting:
            raise TerminatedError(f"stopped by signal {self._waiting[0]} before the training began")


def is_running(run: RunDir) -> bool:
    """Whether a living trainer has taken the run up."""
    try:
        return inferred_state(read_status(run)) is State.RUNNING
    # a status of another release or half a file: not known to run
    except (OSError, DgcError, ValueError, TypeError):
        return False


@contextlib.contextmanager
def hearing() -> Iterator[SignalRelay]:
    """Within the block no signal ends us: what is heard waits for the process that is to be
    started.
    """
    heard = SignalRelay()
    # Before any process is started: a signal that comes while it starts must find a handler.
    before = {signum: signal.signal(signum, heard.hear) for signum in FORWARDED}
    try:
        yield heard
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextlib.contextmanager
def forwarding(process: Process, run: RunDir | None = None) -> Iterator[SignalRelay]:
    """Within the block, signals for us go to the process; we stay to see its end."""
    with hearing() as heard:
        heard.attach(process, run)
        yield heard
