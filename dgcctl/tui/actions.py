"""What the dashboard can do to a run: leave a request in its control folder, or start a trainer.
Nothing else.

The training process knows nothing of a dashboard: it finds a file, does what it says and removes
it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from dgc.errors import DgcError, ExitCode, UsageError
from dgc.recipe.load import dump_recipe, flatten, load_recipe
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgc.run.trusted_code import require_trusted
from dgcctl.core.launch import launcher, outcome
from dgcctl.core.runs.listing import RESUMABLE, Run
from dgcctl.core.runs.recipe_values import read_values

_RUNS_HERE = frozenset({State.QUEUED, State.RUNNING})
# the trainer would find no recipe there, and a script looks for no such request
_NOT_OF_SCRIPTS = {
    "resume": "its script goes on with it, started again with resume=True",
    "checkpoint": "its script alone saves checkpoints, where it calls checkpoint()",
}


def refusal(run: Run | None, act: str) -> str:
    """Why this act would do nothing to this run now; empty where it would."""
    if run is None:
        return "no run is chosen here"
    if act == "resume":
        able, told = RESUMABLE, "only a run that stopped, failed or died can be resumed"
    else:
        able, told = _RUNS_HERE, f"only a running run can be asked to {act}"
    if run.state not in able:
        return f"{run.id} is {run.state}: {told}"
    if run.by_script and act in _NOT_OF_SCRIPTS:
        return f"{run.id} is a script's run: {_NOT_OF_SCRIPTS[act]}"
    return ""


def request(run: Run, name: str) -> None:
    """Leave control/stop or control/checkpoint. Raises UsageError where it cannot be written."""
    try:
        run.dir.control.mkdir(exist_ok=True)
        (run.dir.control / name).touch()
    except OSError as error:
        raise UsageError(
            f"{run.dir.control / name}: cannot be written ({error.strerror})"
        ) from error


class Trainers:
    """The trainers started from here. They outlive the dashboard; while it lives, it reaps the
    ended ones.
    """

    def __init__(self) -> None:
        self._processes: list[tuple[RunDir, launcher.Process, float]] = []

    def start(self, recipe: Path, runs_dir: Path, overrides: Sequence[str] = ()) -> RunDir:
        """Make a run of a recipe's file and train it, detached. Raises RecipeError, and
        UnsafeFileError where it names code that nobody trusted: then there is no run.
        """
        resolved = load_recipe(recipe, list(overrides))
        require_trusted(dict(flatten(resolved)))
        # As the command line would have it, so that the record says how to do the same again.
        argv = {
            "argv": ["dgcctl", "train", str(recipe), *overrides],
            "recipe_file": str(recipe),
            "overrides": list(overrides),
            "by": "dash",
        }
        run = launcher.create(runs_dir, resolved.name, dump_recipe(resolved), argv)
        self._launch(run, [])
        return run

    def resume(self, run: RunDir) -> None:
        """Go on with a run, detached. Raises DgcError where its code is not trusted."""
        require_trusted(read_values(run))
        self._launch(run, ["--resume"])

    def _launch(self, run: RunDir, options: list[str]) -> None:
        began = time.time()
        command = [*launcher.module_command("dgc.train"), "--run-dir", str(run.path), *options]
        self._processes.append((run, launcher.start_training(run, command, detach=True), began))

    def reap(self) -> list[tuple[str, str]]:
        """The run and one line for each that ended in failure since the last call."""
        ended = [
            (run, code, began)
            for run, process, began in self._processes
            if (code := process.poll()) is not None
        ]
        # Also ends zombies: nobody else waits for these processes.
        self._processes = [entry for entry in self._processes if entry[1].poll() is None]
        accounts = [(run.id, _account(run, code, began)) for run, code, began in ended]
        return [(run_id, str(error)) for run_id, error in accounts if error is not None]


def _account(run: RunDir, code: int, began: float) -> DgcError | None:
    """Why it failed; None where it is done, or stopped because it was asked to."""
    # It was asked to stop, and did.
    if code == ExitCode.PREEMPTED:
        return None
    error = outcome.failure(run, code, since=began)
    if error is not None:
        outcome.settle(run, error)
    return error
