"""A search: Optuna chooses values and says which trials to end early; each trial is a run like any
other.

    <runs>/searches/<recipe>-<digest>/plan.json      what was asked; never rewritten
                                      base.yaml      the recipe all trials start from, resolved
                                      journal.log    Optuna's storage: values, results
                                      trial-003.lock held by the worker that has this trial

Any number of processes work on one search: whoever asks for a trial holds `ask.lock` meanwhile. The
system frees the locks of a process that was killed, and its trial is taken up again. What Optuna
draws for a trial depends on the seed, the trial's number and the results so far alone, so one
worker that was killed and begun again makes the very trials of one that was not.
"""

from __future__ import annotations

import difflib
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock
import orjson

from dgc.errors import IntegrityError, RecipeError, UsageError
from dgc.recipe.load import Recipe, dump_recipe, find_recipe, load_recipe
from dgc.run.files import make_shared_folder, read_json, write_json
from dgc.run.metrics import RESULTS
from dgc.run.names import checked_name, is_one_component
from dgcctl.core.search.draws import (
    Unusable,
    combinations,
    overrides_of,
    told_problem,
    try_choices,
)
from dgcctl.core.search.journal import (
    PRUNERS,
    SAMPLERS,
    open_study,
    pruner_of,
    require_optuna,
    sampler_of,
)
from dgcctl.core.search.space import parse_choices
from dgcctl.core.sweep.plan import (
    REMOVED,
    Plan,
    Sweep,
    Trial,
    TrialState,
    every,
    planned_trial,
    trial_rows,
)

FOLDER = "searches"
_IN_VAIN = 20  # draws in a row that make no new trial: what is left is then counted out
_COUNTED_OUT = 200  # of what is left, so many are tried before the values are called a mistake
LACKS = "lacks"  # Optuna keeps that a trial ended without the figure, so that no other is begun
_NO_TRIAL = ("refused", "repeats")  # why a draw made none


@dataclass(frozen=True)
class Asked:
    """What plan.json holds. `values` are those of the command line."""

    id: str
    recipe: str
    values: list[str]
    sampler: str
    pruner: str
    seed: int
    metric: str
    created: float = field(default_factory=time.time)
    maximize: bool = False


class Claim:
    """A trial that this process has, until `release`."""

    def __init__(self, number: int, trial: Trial, lock: filelock.BaseFileLock) -> None:
        self.number, self.trial, self._lock = number, trial, lock

    def release(self) -> None:
        self._lock.release()


class Search:
    """A plan, where it lies, and Optuna's study of it."""

    def __init__(self, path: Path, asked: Asked, allow: Callable[[Recipe], None] = every) -> None:
        self.path, self.asked, self.allow = path, asked, allow
        self.choices = parse_choices(asked.values)[1]
        self.optuna = require_optuna()
        self.study = self._study(0)

    def _study(self, drawn: int, fixed: dict[str, Any] | None = None) -> Any:
        # a number a trial: a sampler that starts anew must not draw the first trial's numbers again
        seed = (self.asked.seed * 1_000_003 + drawn) % 2**32
        return open_study(
            self.path,
            self.asked.id,
            sampler=sampler_of(self.asked.sampler, seed, fixed),
            pruner=pruner_of(self.asked.pruner),
            maximize=self.asked.maximize,
        )

    def frozen(self) -> list[Any]:
        """Optuna's record of the trials that became runs, in order."""
        # in the journal, not in memory: trials of other workers are there too
        return [one for one in self.study.get_trials(deepcopy=False) if "run" in one.user_attrs]

    def sweep(self) -> Sweep:
        """The trials so far as those of a sweep, whose runs are made and read in one way."""
        trials = [Trial(**one.user_attrs["run"]) for one in self.frozen()]
        for trial in trials:
            # the name becomes a folder, and the journal is a file
            if not is_one_component(str(trial.run)):
                raise IntegrityError(f"{self.path}: the run {trial.run!r} is no name")
        axes = list(self.asked.values)
        return Sweep(
            self.path, Plan(self.asked.id, self.asked.recipe, axes, self.asked.created, trials)
        )

    def claim(self, trials: int, passed: frozenset[int]) -> Claim | None:
        """A trial that nobody has: one that was begun and left (but `passed`), or a new one while
        there are fewer than `trials`. None where there is nothing to do, or nothing left to draw.
        """
        # one at a time: what is drawn depends on the results so far
        with filelock.FileLock(self.path / "ask.lock"):
            for one in self.study.get_trials(deepcopy=False):
                if one.state.is_finished():
                    continue
                if "run" not in one.user_attrs:  # killed while it was asked for: it is none
                    self.study.tell(one.number, state=self.optuna.trial.TrialState.FAIL)
                elif one.number not in passed and (claim := self._taken(one.number)):
                    return claim
            if len(self.frozen()) >= trials:
                return None
            # asked for only while there are too few: trials that others are at work on count
            number = self._ask()
            return None if number is None else self._taken(number)

    def _taken(self, number: int) -> Claim | None:
        trial = Trial(**self.study.get_trials(deepcopy=False)[number].user_attrs["run"])
        lock = filelock.FileLock(self.path / f"trial-{trial.index:03d}.lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            return None
        # another worker may have ended it between the list and the lock
        if self.study.get_trials(deepcopy=False)[number].state.is_finished():
            lock.release()
            return None
        return Claim(number, trial, lock)

    def _ask(self) -> int | None:
        """Optuna's number of a new trial, whose recipe was checked; None where all that can be
        drawn was. Raises RecipeError where no values make a recipe, UsageError where none are new.
        """
        for tried in range(_IN_VAIN + _COUNTED_OUT):
            left = self.left()
            if left == [] or (left is None and tried >= _IN_VAIN):
                break
            # a sampler that likes few values draws them again and again: then one that is left
            counted_out = left is not None and tried >= _IN_VAIN
            fixed = random.Random(self.asked.seed).choice(left) if left and counted_out else None
            if (number := self._draw(fixed)) is not None:
                return number
        if left == []:
            return None
        last = self.study.get_trials(deepcopy=False)[-1].user_attrs
        if problem := last.get("refused"):
            raise RecipeError(problem)
        raise UsageError(
            f"search {self.asked.id}: {_IN_VAIN} draws in a row repeat earlier trials: give more"
            " values to choose from"
        )

    def _draw(self, fixed: dict[str, Any] | None) -> int | None:
        """Optuna's number of one draw that makes a new trial; None where no recipe takes it, or an
        earlier trial computes the same.
        """
        # those that made no trial count: they used up a draw
        every_trial = self.study.get_trials(deepcopy=False)
        drawn = sum(bool({"run", *_NO_TRIAL} & set(one.user_attrs)) for one in every_trial)
        self.study = self._study(drawn, fixed)
        asked = self.study.ask({one.key: one.distribution() for one in self.choices})
        overrides = overrides_of(self.choices, asked.params)
        try:
            recipe = load_recipe(self.path / "base.yaml", overrides)
        except RecipeError as error:
            self._discard(asked, "refused", str(error))
            return None
        self.allow(recipe)
        # the index among those that became runs: others have no run, and no number
        trials = self.sweep().plan.trials
        trial = planned_trial(recipe, len(trials), overrides)
        if same := next((one for one in trials if one.digest == trial.digest), None):
            self._discard(asked, "repeats", same.index)
            return None
        asked.set_user_attr("run", asdict(trial))
        return int(asked.number)

    def _discard(self, asked: Any, why: str, what: str | int) -> None:
        asked.set_user_attr(why, what)
        self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)

    def left(self) -> list[dict[str, Any]] | None:
        """What was not drawn yet; None where it cannot be counted."""
        every_one = combinations(self.choices)
        if every_one is None:
            return None
        drawn = {
            tuple(overrides_of(self.choices, one.params))
            for one in self.study.get_trials(deepcopy=False)
            if {"run", *_NO_TRIAL} & set(one.user_attrs)
        }
        return [one for one in every_one if tuple(overrides_of(self.choices, one)) not in drawn]

    def refused(self) -> dict[str, int]:
        """Why draws made no recipe, and how many for each reason."""
        found = [one.user_attrs.get("refused") for one in self.study.get_trials(deepcopy=False)]
        return dict(Counter(told_problem(str(problem)) for problem in found if problem))

    def lacking(self) -> str:
        """The sentence of a trial that ended without the figure that is asked for; "" where none
        did.
        """
        return next(
            (str(one.user_attrs[LACKS]) for one in self.frozen() if LACKS in one.user_attrs), ""
        )

    def handle(self, number: int) -> Any:
        """Optuna's trial, to report to."""
        known = self.study.get_trials(deepcopy=False)[number]
        return self.optuna.trial.Trial(self.study, known._trial_id)

    def best(self) -> int | None:
        """The trial with the least figure (the largest, with `maximize`) of those that ended."""
        done = self.optuna.trial.TrialState.COMPLETE
        ended = [one for one in self.frozen() if one.state is done]
        pick = max if self.asked.maximize else min
        # the first of equal ones, whatever the order of their ends
        best = pick(ended, key=lambda one: one.value, default=None)
        return None if best is None else int(best.user_attrs["run"]["index"])

    def rows(self) -> list[dict[str, Any]]:
        """A row a trial: its values, the state of its run, the figure, and whether it is the
        best.
        """
        frozen, best = self.frozen(), self.best()
        rows = trial_rows(self.sweep())
        for row, one in zip(rows, frozen, strict=True):
            # what was searched, all of it: a value that all trials share was still drawn
            row["swept"] = row["values"]
            row[self.asked.metric] = one.value if one.value is not None else _last(one)
            row["best"] = row["trial"] == best
            if one.state.is_finished() and row["state"] == TrialState.PENDING:
                row |= {"state": REMOVED, "reason": "its run is gone; the search keeps the figure"}
        return rows

    def still_due(self) -> list[int]:
        """Trials without a result."""
        return [
            int(one.user_attrs["run"]["index"])
            for one in self.frozen()
            if not one.state.is_finished()
        ]


def _last(one: Any) -> float | None:
    return one.intermediate_values[one.last_step] if one.intermediate_values else None


def open_or_create(
    runs: Path,
    recipe: str,
    values: Sequence[str],
    *,
    sampler: str = "tpe",
    pruner: str = "median",
    seed: int = 0,
    metric: str = "top1_error",
    maximize: bool = False,
    name: str = "",
    allow: Callable[[Recipe], None] = every,
    warn: Callable[[Unusable], None] = lambda _: None,
) -> Search:
    """The search of these very values: the one that stands there (it goes on), or a new one.
    `warn` is told of choices that no trial can have.

    Raises RecipeError where a key takes no such value, UsageError.
    """
    _one_of("--sampler", sampler, SAMPLERS)
    _one_of("--pruner", pruner, PRUNERS)
    _require_known(metric)
    if name:
        checked_name(name, "--name")
    require_optuna()
    fixed, choices = parse_choices(values)
    whole = find_recipe(recipe)
    base = dump_recipe(load_recipe(whole, fixed))
    # before anything is made
    drawn, unusable = try_choices(choices, lambda words: load_recipe(whole, [*fixed, *words]))
    allow(drawn)
    asked = [base, list(values), sampler, pruner, seed, metric, *(["maximize"] * maximize)]
    digest = hashlib.sha256(orjson.dumps(asked)).hexdigest()[:10]
    path = runs / FOLDER / (name or f"{Path(recipe).stem}-{digest}")
    make_shared_folder(path.parent)
    path.mkdir(exist_ok=True)
    with filelock.FileLock(path / "ask.lock"):
        if not (path / "plan.json").is_file():
            (path / "base.yaml").write_text(base, encoding="utf-8")
            made = Asked(
                path.name, Path(recipe).stem, list(values), sampler, pruner, seed, metric,
                maximize=maximize,
            )  # fmt: skip
            write_json(path / "plan.json", {**asdict(made), "digest": digest})
    if read_json(path / "plan.json").get("digest") != digest:
        raise UsageError(
            f"{path}: this search was planned with other values: give another --name, or remove"
            " that folder"
        )
    for one in unusable:
        warn(one)
    return open_search(path, allow)


def _require_known(metric: str) -> None:
    """A figure that no evaluation has would be missed after the first training alone."""
    if metric in RESULTS:
        return
    near = difflib.get_close_matches(metric, RESULTS, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(
        f"--metric {metric}: no evaluation has it{hint}: should be one of {', '.join(RESULTS)}"
    )


def _one_of(option: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        raise UsageError(f"{option} {given}: should be {', '.join(known[:-1])} or {known[-1]}")


def open_search(path: Path, allow: Callable[[Recipe], None] = every) -> Search:
    """Read a plan. Raises UsageError where there is none, IntegrityError where it is damaged."""
    try:
        found = read_json(path / "plan.json")
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no search (plan.json is expected): see `dgcctl search ls`"
        ) from None
    try:
        known: dict[str, Any] = {
            key: found[key] for key in Asked.__dataclass_fields__ if key in found
        }
        return Search(path, Asked(**known), allow)
    except (TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(f"{path / 'plan.json'}: no plan of a search ({error})") from error


def list_searches(runs: Path) -> Iterator[Search]:
    """All searches below a runs folder, by name."""
    place = runs / FOLDER
    for folder in sorted(place.iterdir()) if place.is_dir() else []:
        if (folder / "plan.json").is_file():
            yield open_search(folder)
