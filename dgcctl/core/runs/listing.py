"""Runs in a folder: list them, find one, say its state. Reads status.json and metrics.json of each
and nothing more.

A run without a readable status is listed as `unreadable`, never hidden and never a crash.
"""

from __future__ import annotations

import difflib
import os
import pwd
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from dgc.errors import IntegrityError, ResourceError, UsageError
from dgc.run.files import read_json
from dgc.run.last_words import after_death
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, inferred_state, read_status
from dgcctl.core.runs import filters, labels, trial_of
from dgcctl.core.runs.recipe_values import read_tree, values_of
from dgcctl.core.runs.run_ids import is_stamped, recipe_name, short_forms

UNREADABLE = "unreadable"
RESUMABLE = frozenset({State.STOPPED, State.FAILED, State.DIED, State.QUEUED})
_LISTED = 8  # runs that a short name may mean; more would fill a screen


@dataclass(frozen=True)
class Run:
    """One run as its folder says now. `recipe` and `values` are read when first asked for."""

    dir: RunDir
    status: Status
    state: str
    problem: str = ""
    # the last evaluation's, and of a script's run what it logged last
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.dir.id

    @property
    def name(self) -> str:
        """The recipe's name, from the id `<utc>-<name>-<hex>`."""
        return recipe_name(self.id)

    @cached_property
    def by_script(self) -> bool:
        """Whether a script recorded it (dgc.run.start): it alone can go on with it."""
        return self.dir.config.exists()

    @cached_property
    def repeats(self) -> str:
        """The id of the run that this one is a repetition of (`rerun`); empty where it is none."""
        return repeated_by(self.dir)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe with dotted keys; empty where it cannot be read."""
        return values_of(self._tree)

    @cached_property
    def _tree(self) -> dict[str, Any]:
        return read_tree(self.dir)

    @cached_property
    def target(self) -> tuple[float, float] | None:
        """The top-1 error that its recipe expects, and the tolerance; None where it names none."""
        expected = self._tree.get("expect")
        for row in expected if isinstance(expected, list | tuple) else ():
            if isinstance(row, dict) and row.get("metric") == "top1_error":
                value, tolerance = row.get("value"), row.get("tolerance", 0.0)
                if isinstance(value, int | float) and isinstance(tolerance, int | float):
                    return float(value), float(tolerance)
        return None

    @cached_property
    def given(self) -> labels.Labels:
        """The tags and the note that a person gave it."""
        return labels.read(self.dir)

    def row(self) -> dict[str, Any]:
        """What a listing shows."""
        return dict(self._row)

    @cached_property
    def _row(self) -> dict[str, Any]:
        status = self.status
        return {
            "id": self.id,
            "recipe": self.name,
            "state": self.state,
            "reason": self.problem or status.reason,
            "epoch": status.epoch,
            "epochs": status.epochs,
            "step": status.step,
            "steps": status.steps,
            "top1_error": self.metrics.get("top1_error"),
            "top5_error": self.metrics.get("top5_error"),
            "loss": self.metrics.get("loss"),
            "macs_dense": self.metrics.get("macs_dense"),
            "macs_promised": self.metrics.get("macs_promised"),
            "macs_executed": self.metrics.get("macs_executed"),
            "parameters": self.metrics.get("parameters"),
            "started": status.started,
            "seconds": status.seconds,
            "repeats": self.repeats or None,
            "path": str(self.dir.path),
        }

    @cached_property
    def values(self) -> dict[str, Any]:
        """Everything that a filter may name:
        the row, the other metrics, the recipe's dotted keys, the age.
        """
        top = {key: value for key, value in self.recipe.items() if "." not in key and key != "name"}
        # the recipe's tags and those given later, as one list: a filter knows no difference
        given = self.given
        top["tags"] = [*(top.get("tags") or []), *given.tags]
        # later ones win: what the run's own row says goes before a recipe key of that name
        return {
            **trial_of.read(self.dir),
            **self.metrics,
            **self.recipe,
            **top,
            **self._row,
            "note": given.note or None,
            "name": self.name,
            "age": self.age,
            "host": self.status.host,
            "owner": self.owner,
        }

    @cached_property
    def owner(self) -> str:
        """Whose folder it is: the user's name, or number where it has none here."""
        try:
            return user_name(self.dir.path.stat().st_uid)
        except OSError:
            return ""

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return max(0.0, time.time() - self.status.started)


@cache
def user_name(number: int) -> str:
    """The name of a user of this machine, or the number. Each is looked up once."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def iterate(runs: Path) -> Iterator[RunDir]:
    """The run directories in a folder, newest first (an absent folder holds none)."""
    try:
        with os.scandir(runs) as entries:
            names = [
                entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()
            ]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in sorted(names, reverse=True):
        run = RunDir(runs / name)
        if _may_be_run(run):
            yield run


def _may_be_run(run: RunDir) -> bool:
    """Whether a folder holds a run;
    one that may not be looked into could, and is listed as unreadable.
    """
    try:
        # either will do: a run that was made a moment ago has no status yet
        return bool(run.status.exists() or run.recipe.exists())
    except OSError:
        return is_stamped(run.id)


def is_closed(run: RunDir) -> bool:
    """Whether the folder may not be looked into."""
    return not os.access(run.path, os.R_OK | os.X_OK)


def read_run(run: RunDir) -> Run:
    """One run as it is now. Never raises for a damaged record: the state is then `unreadable`."""
    try:
        status = read_status(run)
        state = inferred_state(status)
        if state is State.DIED and run.config.exists():
            status = after_death(run, status)
        metrics = {**status.logged, **_metrics(run)}
        return Run(run, status, str(state), metrics=metrics)
    except FileNotFoundError:
        return Run(run, _no_status(run), UNREADABLE, f"{run.id}: no status.json")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return Run(run, _no_status(run), UNREADABLE, f"{error.filename or run.path}: {why}")
    except (IntegrityError, ValueError, TypeError) as error:
        return Run(run, _no_status(run), UNREADABLE, str(error))


def repeated_by(run: RunDir) -> str:
    """The id of the run that `rerun` repeated into this folder; empty for a training."""
    if not os.path.lexists(f"{run.path}/rerun.json"):  # as most have none, in a third of the time
        return ""
    try:
        return str(read_json(run.file("rerun.json")).get("of") or "an unknown run")
    except FileNotFoundError:
        return ""
    except (OSError, IntegrityError):
        return "an unknown run"


def _no_status(run: RunDir) -> Status:
    try:
        started = run.path.stat().st_mtime
    except OSError:
        started = 0.0
    return Status(
        state=State.QUEUED, host="", pid=0, start_token=0.0, started=started, heartbeat=started
    )


def _metrics(run: RunDir) -> dict[str, Any]:
    try:
        values = read_json(run.metrics)
    except (OSError, IntegrityError):
        return {}
    values.pop("schema_version", None)
    return values


def list_runs(runs: Path) -> list[Run]:
    """All runs of a folder, those that began last first."""
    found = [read_run(run) for run in iterate(runs)]
    return sorted(found, key=lambda run: (run.status.started, run.id), reverse=True)


def end_of_schedule(model: dict[str, Any]) -> dict[str, Any]:
    """What model.json says a network costs at the end of its pruning schedule;
    older records called it `macs`.
    """
    found = model.get("macs_at_end_of_schedule", model.get("macs"))
    return found if isinstance(found, dict) else {}


def evaluated_macs(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """{"dense", "promised", "executed"} of the network that metrics.json is about;
    {} before any evaluation.
    """
    found = {kind: metrics.get(f"macs_{kind}") for kind in ("dense", "promised", "executed")}
    return found if found["executed"] is not None else {}


# --- one run by what the user calls it ------------------------------------------------------------


def find_run(reference: str | Path, runs: Path) -> RunDir:
    """The run that an id, a unique prefix (of the id
    or of its last part), a path, or `latest` names.

    Raises UsageError with the nearest ids where there is none or more than one.
    """
    text = str(reference)
    path = Path(text)
    if ("/" in text or text == ".") or _is_file(path / "status.json"):
        return _by_path(path)
    known = list(iterate(runs))
    if not known:
        raise UsageError(
            f"{runs}: no runs here: `dgcctl train demo` makes one, --runs-dir or DGCCTL_RUNS_DIR"
            " names another"
        )
    if text == "latest":
        return latest(known)
    return _by_prefix(text, known)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that may not be looked into
        return False


def _by_path(path: Path) -> RunDir:
    run = RunDir(path.resolve())
    if _is_file(run.status) or _is_file(run.recipe):
        return run
    # asked before `there is no such folder`: it is there, and somebody's
    if run.path.is_dir() and is_closed(run):
        raise ResourceError(f"{path}: permission denied: ask its owner, or name another run")
    if not path.exists():
        near = difflib.get_close_matches(path.name, _beside(path), n=1, cutoff=0.5)
        hint = f" (did you mean {path.parent / near[0]}?)" if near else ""
        raise UsageError(f"{path}: there is no such folder{hint}: see `dgcctl runs ls`")
    raise UsageError(
        f"{path}: no run directory (it holds neither status.json nor recipe.yaml): see `dgcctl"
        " runs ls`"
    )


def _beside(path: Path) -> list[str]:
    """The runs that lie where a path looks for one."""
    try:
        return [run.id for run in iterate(path.parent)]
    except OSError:
        return []


def latest(known: list[RunDir]) -> RunDir:
    """The newest training that may be read, by when it began, as lists are sorted. A repetition
    (`rerun`) is meant only where there is nothing else.
    """
    # those of others that may not be read are passed over, unless there are no others
    known = [run for run in known if not is_closed(run)] or known
    return _newest(known, _is_training) or _newest(known, lambda _: True) or known[0]


def find_running(reference: str, runs: Path) -> RunDir:
    """As `find_run`, for who wants to stop it: `latest` is the newest run that is running, be it a
    training or a repetition. Raises UsageError where none is.
    """
    if reference != "latest":
        return find_run(reference, runs)
    find_run(reference, runs)  # raises where there are no runs at all
    found = _newest(list(iterate(runs)), _is_running)
    if found is None:
        raise UsageError(f"no run in {runs} is running: there is nothing to stop")
    return found


def _is_training(run: RunDir) -> bool:
    return not repeated_by(run)


def _is_running(run: RunDir) -> bool:
    return read_run(run).state == State.RUNNING


def _newest(known: list[RunDir], fits: Callable[[RunDir], bool]) -> RunDir | None:
    return next((run for run in sorted(known, key=_began, reverse=True) if fits(run)), None)


def _began(run: RunDir) -> tuple[float, str]:
    try:
        status = read_status(run)
    except (OSError, IntegrityError, ValueError, TypeError):
        status = _no_status(run)
    return status.started, run.id


def _by_prefix(text: str, known: list[RunDir]) -> RunDir:
    found = [run for run in known if text in (run.id, *short_forms(run.id))]
    # a whole form before a beginning: an id may be another one's prefix
    found = found or [
        run
        for run in known
        if any(form.startswith(text) for form in (run.id, *short_forms(run.id)))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(run.id for run in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UsageError(
            f"{text}: {len(found)} runs begin so ({names}{more}): give more of the id, or `latest`"
        )
    if filters.is_filter(text):
        raise UsageError(
            f"{text}: is a filter, and one run is meant here: `dgcctl runs ls {shlex.quote(text)}`"
            " lists those that fit"
        )
    words = ["latest", *(form for run in known for form in (run.id, *short_forms(run.id)))]
    near = difflib.get_close_matches(text, words, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"the newest is {known[0].id}"
    raise UsageError(f"{text}: no such run ({hint}): see `dgcctl runs ls`")
