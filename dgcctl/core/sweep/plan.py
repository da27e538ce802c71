"""A sweep: a plan written once, and trials whose state is read from their run directories. So it
resumes by itself.

    <runs>/sweeps/<recipe>-<digest>/plan.json     recipe, axes, trials; never rewritten
                                    base.yaml     the recipe all trials start from, resolved
                                    trial-003.log what the trial's process printed

The run directory of each trial is named in the plan and made when the trial starts.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from dgc.errors import DgcError, IntegrityError, RecipeError, UsageError
from dgc.recipe.load import Recipe, dump_recipe, find_recipe, load_recipe
from dgc.run import provenance
from dgc.run.files import make_shared_folder, read_json, write_json
from dgc.run.names import checked_name, is_one_component
from dgc.run.paths import RunDir
from dgc.run.process import boot_id, is_process, process_start
from dgc.run.status import State, Status, inferred_state, read_status, write_status
from dgcctl.core.find_by_id import find_by_id
from dgcctl.core.repro.run_archive import TRASH
from dgcctl.core.runs.listing import read_run
from dgcctl.core.sweep.grid import Axis, trials

FOLDER = "sweeps"
REMOVED = "removed"  # what a table says of a trial whose run was taken away


class TrialState(StrEnum):
    """State of a trial: that of its run, and before there is one, pending."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    DIED = "died"


@dataclass(frozen=True)
class Trial:
    index: int
    overrides: list[str]
    digest: str
    run: str


@dataclass(frozen=True)
class Plan:
    """What plan.json holds."""

    id: str
    recipe: str
    axes: list[str]
    created: float
    trials: list[Trial]


@dataclass(frozen=True)
class Sweep:
    """A plan and where it lies."""

    path: Path
    plan: Plan

    @property
    def runs(self) -> Path:
        return self.path.parent.parent

    def run_dir(self, trial: Trial) -> RunDir:
        return RunDir(self.runs / trial.run)

    def log(self, trial: Trial) -> Path:
        return self.path / f"trial-{trial.index:03d}.log"

    def state(self, trial: Trial) -> TrialState:
        """Read from the trial's run directory; a queued run has not started yet."""
        try:
            state = inferred_state(read_status(self.run_dir(trial)))
        except FileNotFoundError:
            state = State.QUEUED
        # A record that cannot be read is no reason to lose the sweep: the trial counts as one
        # that broke, and is begun or resumed again.
        except (OSError, DgcError, ValueError, TypeError):
            return TrialState.DIED
        # A trainer needs seconds (PyTorch) before it writes that it runs. In that time the
        # starter's note is all that tells a trial which begins from one that waits.
        if state is State.QUEUED:
            return TrialState.RUNNING if self._is_starting(trial) else TrialState.PENDING
        return TrialState(state.value)

    def note_start(self, trial: Trial, pid: int) -> None:
        """Remember the process of a trial that has not written its status yet."""
        token = {"pid": pid, "start_token": process_start(pid), "boot": boot_id()}
        write_json(self._starter(trial), token)

    def _starter(self, trial: Trial) -> Path:
        return self.path / f"trial-{trial.index:03d}.json"

    def _is_starting(self, trial: Trial) -> bool:
        try:
            starter = read_json(self._starter(trial))
        except FileNotFoundError:
            return False
        return is_process(*(starter[key] for key in ("pid", "start_token", "boot")))

    def states(self) -> dict[int, TrialState]:
        return {trial.index: self.state(trial) for trial in self.plan.trials}


def every(_: Recipe) -> None:
    """For who lets any recipe be a trial's."""


def open_or_create(
    runs: Path,
    recipe: str,
    fixed: Sequence[str],
    axes: Sequence[Axis],
    name: str = "",
    allow: Callable[[Recipe], None] = every,
) -> Sweep:
    """The sweep of these very values: the one that stands there (it goes on), or a new one.

    Every trial's recipe is checked first, and shown to `allow`, which raises for one that must not
    run. Raises RecipeError with all problems of all trials, UsageError.
    """
    if name:
        checked_name(name, "--name")
    base = dump_recipe(load_recipe(find_recipe(recipe), fixed))
    grid = trials(axes)
    # The name comes from the values, so that the same command finds the same sweep and goes on.
    content = orjson.dumps([base, grid])
    identifier = name or f"{Path(recipe).stem}-{hashlib.sha256(content).hexdigest()[:10]}"
    path = runs / FOLDER / identifier
    if (path / "plan.json").is_file():
        found = _same(open_sweep(path), grid, base)
        for known in recipes(found):
            allow(known)
        return found
    planned = checked_trials(recipe, fixed, axes, allow)
    plan = Plan(
        identifier,
        Path(recipe).stem,
        [f"{axis.key}={','.join(axis.values)}" for axis in axes],
        time.time(),
        planned,
    )
    make_shared_folder(path.parent)
    path.mkdir(exist_ok=True)
    # The plan last: a sweep is one only where its plan stands.
    (path / "base.yaml").write_text(base, encoding="utf-8")
    write_json(path / "plan.json", asdict(plan))
    return Sweep(path, plan)


def _same(sweep: Sweep, grid: list[list[str]], base: str) -> Sweep:
    """Refuse to go on with a plan of other values under the same name."""
    same_base = (sweep.path / "base.yaml").read_text(encoding="utf-8") == base
    if same_base and [trial.overrides for trial in sweep.plan.trials] == grid:
        return sweep
    raise UsageError(
        f"{sweep.path}: this sweep was planned with other values: give another --name, or remove"
        " that folder"
    )


def checked_trials(
    recipe: str,
    fixed: Sequence[str],
    axes: Sequence[Axis],
    allow: Callable[[Recipe], None] = every,
) -> list[Trial]:
    """The trials with their recipes' digests. Raises RecipeError with the problems of all of them,
    each named once.
    """
    planned: list[Trial] = []
    problems: list[str] = []
    for index, overrides in enumerate(trials(axes)):
        try:
            checked = load_recipe(find_recipe(recipe), [*fixed, *overrides])
        except RecipeError as error:
            problems += error.problems
            continue
        allow(checked)
        planned.append(planned_trial(checked, index, overrides))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    _refuse_equal_trials(recipe, fixed, planned)
    return planned


def _refuse_equal_trials(recipe: str, fixed: Sequence[str], planned: list[Trial]) -> None:
    """Values can be spelled apart and mean one recipe (null and a default)."""
    by_digest: dict[str, list[Trial]] = {}
    for trial in planned:
        by_digest.setdefault(trial.digest, []).append(trial)
    for same in by_digest.values():
        seen: dict[str, Trial] = {}
        # Equal digests alone are allowed (they compute the same but are labelled or judged
        # apart); equal recipes are a mistake.
        for trial in same if len(same) > 1 else ():
            whole = dump_recipe(load_recipe(find_recipe(recipe), [*fixed, *trial.overrides]))
            if first := seen.get(whole):
                both = " and ".join(" ".join(one.overrides) for one in (first, trial))
                raise UsageError(
                    f"trials {first.index} and {trial.index} are the same recipe: {both}"
                )
            seen[whole] = trial


def planned_trial(checked: Recipe, index: int, overrides: list[str]) -> Trial:
    """A trial with the name of the run that it becomes."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return Trial(
        index,
        overrides,
        checked.digest(),
        f"{stamp}-{checked.name}-{index:03d}{secrets.token_hex(2)}",
    )


def recipes(sweep: Sweep) -> list[Recipe]:
    """The recipe of each trial."""
    return [load_recipe(sweep.path / "base.yaml", trial.overrides) for trial in sweep.plan.trials]


def open_sweep(path: Path) -> Sweep:
    """Read a plan. Raises UsageError where there is none, IntegrityError where it is damaged."""
    try:
        value = read_json(path / "plan.json")
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no sweep (plan.json is expected): see `dgcctl sweep ls`"
        ) from None
    value.pop("schema_version", None)
    try:
        planned = [Trial(**trial) for trial in value.pop("trials")]
        found = Sweep(path, Plan(trials=planned, **value))
    except (KeyError, TypeError) as error:
        raise IntegrityError(
            f"{path / 'plan.json'}: no plan of a sweep ({error}): remove that folder"
        ) from error
    for trial in planned:
        # the folder of a trial that saved nothing is removed before it starts
        if not is_one_component(str(trial.run)):
            raise IntegrityError(
                f"{path / 'plan.json'}: trial {trial.index} has the run {trial.run!r}, which is no"
                " name"
            )
    return found


def list_sweeps(runs: Path, damaged: Callable[[str], None] = lambda line: None) -> list[Sweep]:
    """All sweeps below a runs folder, oldest first; one whose plan cannot be read is told of, and
    left out.
    """
    found = []
    for folder in sorted(_folders(runs / FOLDER)):
        try:
            found.append(open_sweep(folder))
        except UsageError:  # no plan: none
            continue
        except (DgcError, OSError) as error:
            damaged(str(error))
    return sorted(found, key=lambda sweep: sweep.plan.created)


def _folders(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def find_sweep(runs: Path, name: str) -> Sweep:
    """By id, unique prefix of it, or `latest`. Raises UsageError naming the candidates."""
    return find_by_id(name, list_sweeps(runs), lambda sweep: sweep.plan.id, "sweep", "sweeps")


def prepare(sweep: Sweep, trial: Trial) -> tuple[RunDir, bool]:
    """The run directory of a trial that is about to start, and whether it resumes what stands
    there.

    A run that died before its first checkpoint holds nothing to go on from: it is begun anew.
    """
    run = sweep.run_dir(trial)
    # By the name alone: whether one of them is whole is found by the trainer, which then takes an
    # older one.
    if any(run.checkpoints.glob("step-*")):
        return run, True
    # Nothing was saved, so nothing is lost; and a half-made record would be found to differ.
    if run.path.exists():
        shutil.rmtree(run.path)
    run.path.mkdir(parents=True)
    recipe = load_recipe(sweep.path / "base.yaml", trial.overrides)
    run.recipe.write_text(dump_recipe(recipe), encoding="utf-8")
    provenance.record_code(run)
    write_json(
        run.file("sweep.json"),
        {"sweep": sweep.plan.id, "trial": trial.index, "overrides": trial.overrides},
    )
    write_status(run, Status(state=State.QUEUED))
    return run, False


def forget_unbegun(sweep: Sweep, trial: Trial) -> None:
    """Remove the run of a trial whose trainer was ended before it took it up: it would be listed as
    one.
    """
    run = sweep.run_dir(trial)
    if read_run(run).state == State.QUEUED:
        shutil.rmtree(run.path, ignore_errors=True)


def due(sweep: Sweep, *, retry_failed: bool) -> list[Trial]:
    """The trials that still need work, in order; those that another process runs at this moment are
    among them.
    """
    finished = {TrialState.DONE} if retry_failed else {TrialState.DONE, TrialState.FAILED}
    return [trial for trial in sweep.plan.trials if sweep.state(trial) not in finished]


def summary_rows(sweeps: Iterable[Sweep]) -> list[dict[str, Any]]:
    """One row a sweep: how many trials are in each state."""
    return [_summary(sweep) for sweep in sweeps]


def _summary(sweep: Sweep) -> dict[str, Any]:
    states = list(sweep.states().values())
    counts = {state.value: states.count(state) for state in TrialState}
    return {
        "id": sweep.plan.id,
        "recipe": sweep.plan.recipe,
        "values": " ".join(sweep.plan.axes),
        "trials": len(states),
        **counts,
    }


def trial_rows(sweep: Sweep) -> list[dict[str, Any]]:
    """One row a trial: its values, those of them that are not the same in all trials (`swept`),
    state, and the result where there is one.
    """
    told = swept([trial.overrides for trial in sweep.plan.trials])
    rows = [_trial_row(sweep, trial) for trial in sweep.plan.trials]
    return [{**row, "swept": values} for row, values in zip(rows, told, strict=True)]


def swept(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Of each trial, the values that tell it from the others; all of them where none does."""
    same = set(overrides[0]).intersection(*overrides[1:]) if len(overrides) > 1 else set()
    told = [" ".join(word for word in words if word not in same) for words in overrides]
    return told if any(told) else [" ".join(words) for words in overrides]


def _trial_row(sweep: Sweep, trial: Trial) -> dict[str, Any]:
    run = sweep.run_dir(trial)
    try:
        metrics = read_json(run.metrics)
    except (OSError, DgcError):
        metrics = {}
    seen = read_run(run)
    state, reason = sweep.state(trial).value, seen.problem or seen.status.reason
    if not run.path.exists():
        in_trash = (sweep.runs / TRASH / run.id).exists()
        reason = f"in the trash: `dgcctl runs restore {run.id}` brings it back" if in_trash else ""
        state = REMOVED if in_trash and state == TrialState.PENDING else state
    return {
        "trial": trial.index,
        "values": " ".join(trial.overrides),
        "state": state,
        "top1_error": metrics.get("top1_error"),
        "run": trial.run,
        "reason": reason,
    }
