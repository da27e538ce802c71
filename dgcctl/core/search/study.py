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

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock
import orjson

from dgc.errors import IntegrityError, RecipeError, UsageError
from dgc.recipe.load import Recipe, dump_recipe, find_recipe, load_recipe
from dgc.run.files import make_shared_folder, read_json, write_json
from dgc.run.names import checked_name, is_one_component
from dgcctl.core.search.space import parse_choices
from dgcctl.core.sweep.plan import Plan, Sweep, Trial, every, planned_trial, trial_rows

FOLDER = "searches"
SAMPLERS = ("tpe", "random")
PRUNERS = ("none", "median", "halving")
_REFUSED = 20  # recipes in a row that cannot be: then the values are a mistake


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

    def _study(self, drawn: int) -> Any:
        """The study, with a sampler whose numbers are those of the trial that comes next."""
        optuna = self.optuna
        # a number a trial: a sampler that starts anew must not draw the first trial's numbers again
        seed = (self.asked.seed * 1_000_003 + drawn) % 2**32
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        pruners = {
            "none": optuna.pruners.NopPruner,
            "median": optuna.pruners.MedianPruner,
            "halving": optuna.pruners.SuccessiveHalvingPruner,
        }
        # under the lock of the journal: another worker may be writing its line now
        with self._journal_lock():
            _cut_torn_line(self.path / "journal.log")
        backend = optuna.storages.journal.JournalFileBackend(
            str(self.path / "journal.log"), lock_obj=_JournalLock(self.path / "journal.lock")
        )
        return optuna.create_study(
            study_name=self.asked.id,
            storage=optuna.storages.JournalStorage(backend),
            sampler=samplers[self.asked.sampler](seed=seed),
            pruner=pruners[self.asked.pruner](),
            load_if_exists=True,
        )

    def _journal_lock(self) -> filelock.BaseFileLock:
        return filelock.FileLock(self.path / "journal.lock")

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
        there are fewer than `trials`. None where there is nothing to do.
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
            return self._taken(self._ask())

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

    def _ask(self) -> int:
        """Optuna's number of a new trial, whose recipe was checked. Raises RecipeError where no
        values make a recipe.
        """
        for _ in range(_REFUSED):
            # refused ones count: they used up a draw
            every_trial = self.study.get_trials(deepcopy=False)
            drawn = sum(bool({"run", "refused"} & set(one.user_attrs)) for one in every_trial)
            self.study = self._study(drawn)
            asked = self.study.ask({one.key: one.distribution() for one in self.choices})
            overrides = [one.override(asked.params[one.key]) for one in self.choices]
            try:
                recipe = load_recipe(self.path / "base.yaml", overrides)
            except RecipeError as error:
                problem = error
                asked.set_user_attr("refused", str(error))
                self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)
                continue
            self.allow(recipe)
            # the index among those that became runs: refused ones have no run, and no number
            trial = planned_trial(recipe, len(self.frozen()), overrides)
            asked.set_user_attr("run", asdict(trial))
            return int(asked.number)
        raise problem

    def handle(self, number: int) -> Any:
        """Optuna's trial, to report to."""
        known = self.study.get_trials(deepcopy=False)[number]
        return self.optuna.trial.Trial(self.study, known._trial_id)

    def best(self) -> int | None:
        """The trial with the least error of those that ended."""
        done = self.optuna.trial.TrialState.COMPLETE
        ended = [one for one in self.frozen() if one.state is done]
        least = min(ended, key=lambda one: one.value, default=None)
        # the first of equal ones, whatever the order of their ends
        return None if least is None else int(least.user_attrs["run"]["index"])

    def rows(self) -> list[dict[str, Any]]:
        """A row a trial: its values, the state of its run, the figure, and whether it is the
        best.
        """
        values = [one.value if one.value is not None else _last(one) for one in self.frozen()]
        best = self.best()
        return [
            {**row, self.asked.metric: value, "best": row["trial"] == best}
            for row, value in zip(trial_rows(self.sweep()), values, strict=True)
        ]

    def still_due(self) -> list[int]:
        """Trials without a result."""
        return [
            int(one.user_attrs["run"]["index"])
            for one in self.frozen()
            if not one.state.is_finished()
        ]


def _last(one: Any) -> float | None:
    return one.intermediate_values[one.last_step] if one.intermediate_values else None


class _JournalLock:
    """Optuna's lock of its journal, by a lock that the system frees when its holder is killed."""

    def __init__(self, path: Path) -> None:
        self._lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def _cut_torn_line(journal: Path) -> None:
    """Remove half a line, which a worker that was killed while it wrote left at the end: the next
    line would be written behind it.
    """
    if not journal.is_file():
        return
    # the whole journal: it is read by Optuna anyway, and the torn line is at its end
    data = journal.read_bytes()
    if not data.endswith(b"\n"):
        with journal.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def require_optuna() -> Any:
    """Optuna, which only a search needs. Raises UsageError where it is absent."""
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise UsageError("a search needs Optuna: pip install 'dgcctl[search]'") from None
    # Optuna logs each trial to stderr, where our own lines are
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_or_create(
    runs: Path,
    recipe: str,
    values: Sequence[str],
    *,
    sampler: str = "tpe",
    pruner: str = "median",
    seed: int = 0,
    metric: str = "top1_error",
    name: str = "",
    allow: Callable[[Recipe], None] = every,
) -> Search:
    """The search of these very values: the one that stands there (it goes on), or a new one.

    Raises RecipeError where a key takes no such value, UsageError.
    """
    _one_of("--sampler", sampler, SAMPLERS)
    _one_of("--pruner", pruner, PRUNERS)
    if name:
        checked_name(name, "--name")
    require_optuna()
    fixed, choices = parse_choices(values)
    base = dump_recipe(load_recipe(find_recipe(recipe), fixed))
    # before anything is made
    allow(load_recipe(find_recipe(recipe), [*fixed, *(choice.first() for choice in choices)]))
    asked = [base, list(values), sampler, pruner, seed, metric]
    digest = hashlib.sha256(orjson.dumps(asked)).hexdigest()[:10]
    path = runs / FOLDER / (name or f"{Path(recipe).stem}-{digest}")
    make_shared_folder(path.parent)
    path.mkdir(exist_ok=True)
    with filelock.FileLock(path / "ask.lock"):
        if not (path / "plan.json").is_file():
            (path / "base.yaml").write_text(base, encoding="utf-8")
            made = Asked(path.name, Path(recipe).stem, list(values), sampler, pruner, seed, metric)
            write_json(path / "plan.json", {**asdict(made), "digest": digest})
    if read_json(path / "plan.json").get("digest") != digest:
        raise UsageError(
            f"{path}: this search was planned with other values: give another --name, or remove"
            " that folder"
        )
    return open_search(path, allow)


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
        known: dict[str, Any] = {key: found[key] for key in Asked.__dataclass_fields__}
        return Search(path, Asked(**known), allow)
    except (TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(f"{path / 'plan.json'}: no plan of a search ({error})") from error


def list_searches(runs: Path) -> Iterator[Search]:
    """All searches below a runs folder, by name."""
    place = runs / FOLDER
    for folder in sorted(place.iterdir()) if place.is_dir() else []:
        if (folder / "plan.json").is_file():
            yield open_search(folder)
