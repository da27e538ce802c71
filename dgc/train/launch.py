"""`python -m dgc.train.launch [torchrun options] -m dgc.train --run-dir RUN ...`: torchrun that
ends in one line.

Takes torchrun's own options; `-m dgc.jobs.evaluate` is started the same way, and writes to no run.
What torchrun reports as a traceback and a table becomes what happened: the failing rank's own error
line and exit code, or `rank 1 killed by signal 9 at step 41 (log ...)` and exit code 10, in
status.json too. With several machines RUN lies on a file system that all of them see.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from pathlib import Path

from dgc import settings
from dgc.errors import (
    DgcError,
    ExitCode,
    InterruptedRunError,
    RankError,
    TerminatedError,
    UsageError,
    error_of,
)
from dgc.run import oom
from dgc.run.events import EventKind, EventWriter, live_rows, read_events
from dgc.run.paths import RunDir
from dgc.run.status import State, read_status, write_status
from dgc.run.trusted_code import trust_words_of
from dgc.talk import run_program, say_error
from dgc.train.launch_watch import LauncherWatch, failure_since, rank_log


def main(argv: list[str]) -> int:
    run = trained_run(argv)
    try:
        with _watched(run):
            _launch(argv, run)
    except DgcError as error:
        return _ended(run, error)
    return int(ExitCode.DONE)


def _ended(run: RunDir | None, error: DgcError) -> int:
    # ranks have spoken already where they knew the
    # cause; what none of them could say is told here
    if isinstance(error, RankError) or not _told(run, error):
        if run is not None and run.recipe.is_file():
            settle(run, error)
        say_error(error)
    return int(error.exit_code)


def _watched(run: RunDir | None) -> contextlib.AbstractContextManager[object]:
    """Within the block, the launcher ends even where torchrun does not."""
    if run is None:
        return contextlib.nullcontext()

    def leave(ranks: list[int]) -> None:
        # what the exit codes were torchrun alone knows; that of a lost contact is the rule
        error = explain(run, dict.fromkeys(ranks, int(ExitCode.RANK_DIED)))
        with contextlib.suppress(OSError, DgcError):
            if read_status(run).exit_code:
                error = error_of(read_status(run).exit_code or 0, str(error))
        code = _ended(run, error)
        sys.stderr.flush()
        os._exit(code)

    failed = failure_since(run, time.time(), lambda rank: last_line(run, rank))
    return LauncherWatch(failed, leave)


def trained_run(argv: list[str]) -> RunDir | None:
    """The run that the ranks write; None where they only measure."""
    if "dgc.jobs.evaluate" in argv or "--run-dir" not in argv[:-1]:
        return None
    return RunDir(Path(argv[argv.index("--run-dir") + 1]))


def _launch(argv: list[str], run: RunDir | None) -> None:
    """Run torchrun; raises the DgcError that describes how its ranks ended."""
    # late: a refused command line need not wait seconds for torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import get_args_parser
    from torch.distributed.run import run as torchrun

    os.environ[settings.LAUNCHED] = "1"  # the launcher will say which of the ranks was lost
    # a process that the system killed says nothing; its counter does, before and after
    starved = oom.kills()
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    # no restarts: a rank that was lost takes its state along; `dgcctl resume` knows how to go on
    options = get_args_parser().parse_args(["--max-restarts=0", *argv])
    try:
        torchrun(options)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        raise explain(
            run,
            {rank: failure.exitcode for rank, failure in error.failures.items()},
            oom.kills() > starved,
        ) from error
    except SignalException as error:
        raise _stopped(run, int(error.sigval)) from error
    except RendezvousError as error:
        # at the start, or later, when the machine on which the ranks met is gone
        raise RankError(
            f"no contact with where the ranks meet, {options.rdzv_endpoint}"
            f" ({_first_line(error.__cause__ or error)}): is that machine up, and can this one"
            " reach it?"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise RankError(
            f"the ranks could not meet ({_first_line(error)}): check --rdzv-endpoint, --nnodes and"
            " the port"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def explain(run: RunDir | None, exit_codes: dict[int, int], starved: bool = False) -> DgcError:
    """The one cause among the ends of the ranks:
    a signal, else a rank's own error, else a lost contact.

    torchrun ends the remaining ranks with SIGTERM, so that signal is nobody's cause. `starved`:
    meanwhile the system killed something for want of memory.
    """
    # the system's signals before exit codes: a rank that was killed is why others failed
    killed = {rank: -code for rank, code in exit_codes.items() if code < 0 and code != -15}
    if killed:
        rank = min(killed)
        hint = ", out of memory" if killed[rank] == 9 and starved else ""
        where = (
            f" at step {_step(run)} (log {rank_log(run, rank)}):"
            f" `dgcctl resume {run.id}{trust_words_of(run.recipe_json)}`"
            if run
            else ""
        )
        return RankError(f"rank {rank} killed by signal {killed[rank]}{hint}{where}")
    # a rank that lost contact is the victim of another, so it is asked last
    own = {
        rank: code for rank, code in exit_codes.items() if code > 0 and code != ExitCode.RANK_DIED
    }
    # several may fail of one cause: the lowest rank is as good as any, and the same each time
    rank, code = min((own or exit_codes).items())
    return error_of(code, _words(run, rank, code) or f"rank {rank} ended with exit code {code}")


def _words(run: RunDir | None, rank: int, code: int) -> str:
    """What a rank said of its end ('' where it said nothing)."""
    if run is None:
        return ""
    said = last_line(run, rank)
    if not said and rank == 0:
        # its log may be the terminal, or Slurm's file; but it writes the status
        with contextlib.suppress(OSError, DgcError):
            status = read_status(run)
            said = status.reason if status.exit_code == code else ""
    return said


def _stopped(run: RunDir | None, number: int) -> DgcError:
    """torchrun itself was told to stop:
    its ranks have saved, and left their code in status.json.
    """
    with contextlib.suppress(OSError, DgcError):
        if run is not None and (status := read_status(run)).exit_code:
            return error_of(status.exit_code, status.reason)
    kind = InterruptedRunError if number == 2 else TerminatedError
    return kind(f"stopped by signal {number}" + (" before anything was saved" if run else ""))


def last_line(run: RunDir, rank: int) -> str:
    """The error line of a rank ('' where it left none)."""
    try:
        lines = rank_log(run, rank).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), ""
    )


def _told(run: RunDir | None, error: DgcError) -> bool:
    """Whether the ranks have already said this end, and written it where that changes the run."""
    if run is None or isinstance(error, UsageError):
        return True
    with contextlib.suppress(OSError, DgcError):
        return read_status(run).exit_code == error.exit_code
    return False


def settle(run: RunDir, error: DgcError) -> None:
    """Write the end of a run whose first rank could not,
    or that mistook another rank's end for its own.
    """
    with contextlib.suppress(OSError, DgcError):
        # as the first rank would have: state and reason first, then the END event
        status = read_status(run)
        status.state, status.reason, status.exit_code = (
            State.FAILED,
            str(error),
            int(error.exit_code),
        )
        write_status(run, status)
        events = EventWriter(run)
        events.append(EventKind.END, state=str(State.FAILED), reason=str(error), step=status.step)
        events.close()


def _step(run: RunDir) -> int:
    """The last step that is known of:
    the first rank's status is some seconds old if it was itself killed.
    """
    steps = [0]
    with contextlib.suppress(OSError, DgcError):
        steps.append(read_status(run).step)
        steps += [row["step"] for row in live_rows(read_events(run))[-1:]]
    return max(steps)


if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]))
