"""`python -m dgc.train --run-dir RUN [--resume] [--allow-change] [--rescue-dir D]`: train the run
in its directory.

Also what torchrun starts. Exit code: dgc.errors.ExitCode; the error is one line on stderr and in
status.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path

from dgc import settings
from dgc.errors import DgcError, ExitCode, RankError, UsageError
from dgc.run.paths import RunDir
from dgc.talk import run_program, say, say_error
from dgc.train.signals import Signals, die_with_parent


def main(argv: list[str] | None = None) -> int:
    # the order is the point: what must hold before torch is loaded comes before what loads it
    signals = Signals()
    signals.install()  # before torch is imported, which takes seconds
    wait_politely(os.environ)
    arguments = parse(argv)
    run = RunDir(arguments.run_dir)
    # a rank of torchrun: it must not outlive its launcher, which may be killed
    if "LOCAL_RANK" in os.environ and sys.platform == "linux":
        die_with_parent()
        keep_errors(run, int(os.environ.get("RANK", "0")))
    try:
        settings.check()
        check(run)
        # torch from here on: what was refused above did not wait for it
        from dgc.train.main import run_training
        from dgc.train.session import Options

        given = (arguments.resume, arguments.allow_change, arguments.rescue_dir, arguments.data_dir)
        run_training(run, Options(*given), signals)
    except DgcError as error:
        return report(error)
    except Exception as error:  # noqa: BLE001 - whatever is left is our own mistake, and must end in one line too
        from dgc.train.main import exit_code

        return unexpected(run, error, exit_code(error))
    return int(ExitCode.DONE)


def wait_politely(environment: MutableMapping[str, str]) -> None:
    """Let a thread that waits for the others sleep early (GNU OpenMP), before torch is imported.

    By default it spins for milliseconds. On two cores with one other busy process the demo's step
    took 4,148 ms that way and 632 ms this way (passive waiting: 582 ms, but 28 % more on a quiet
    machine, where this costs 2 %).
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "1000")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dgc.train", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument(
        "--run-dir", type=Path, required=True, help="the run directory; recipe.yaml is read from it"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest whole checkpoint"
    )
    parser.add_argument(
        "--allow-change",
        action="store_true",
        help="resume although something changed; marks the run",
    )
    parser.add_argument(
        "--rescue-dir", type=Path, help="where to save if the run directory refuses a checkpoint"
    )
    parser.add_argument(
        "--data-dir", type=Path, help="where the images lie now, instead of the recipe's data.dir"
    )
    return parser.parse_args(argv)


def check(run: RunDir) -> None:
    if not run.recipe.is_file():
        raise UsageError(
            f"{run.path}: no run directory (recipe.yaml is missing): `dgcctl train RECIPE`"
            " makes one"
        )


def keep_errors(run: RunDir, rank: int) -> None:
    """Ranks other than the first write their stderr to RUN/ranks/rank-N.err,
    where the launcher looks for the cause.
    """
    # each rank a file of its own: on one terminal their lines would run into each other
    if rank == 0 or not run.path.is_dir():
        return
    folder = run.file("ranks")
    folder.mkdir(exist_ok=True)
    # the descriptor, not sys.stderr: C++ libraries write there too
    descriptor = os.open(folder / f"rank-{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def report(error: DgcError) -> int:
    """One line on stderr; what all ranks share is said by the first alone."""
    first = os.environ.get("RANK", "0") == "0"
    # a launcher of ours sees all ranks end, and says which of them was lost
    told_by_launcher = isinstance(error, RankError) and settings.launched()
    if not told_by_launcher and (first or not getattr(error, "shared", False)):
        # a requested stop is no error, and is not said as one
        if error.exit_code < ExitCode.PREEMPTED:
            say_error(error)
        else:
            say(str(error))
    return int(error.exit_code)


def place(error: BaseException) -> str:
    """`dgc/train/step.py:41: `, where the innermost frame
    of our own code stood; "" where none is.
    """
    # frames outside of the package (PyTorch's, the
    # standard library's) say nothing about our mistake
    package = Path(__file__).resolve().parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename).resolve()
        if package in file.parents:
            return f"{file.relative_to(package.parent)}:{frame.lineno}: "
    return ""


def unexpected(run: RunDir, error: BaseException, code: int) -> int:
    """A fault of ours: the traceback goes to the log, one line with its place to stderr."""
    with run.log.open("a") as log:
        log.write("".join(traceback.format_exception(error)))
    text = " ".join(str(error).split())
    say(f"error: {place(error)}{type(error).__name__}: {text} (traceback in {run.log})")
    return code


if __name__ == "__main__":
    run_program(main)
