"""Runs in a folder: list them, say their state. Reads status.json and metrics.json of each
and nothing more.

A run without a readable status is listed as `unreadable`, never hidden and never a crash.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from dgc.errors import IntegrityError
from dgc.run.files import read_json
from dgc.run.last_words import after_death
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, inferred_state, read_status
from dgcctl.core.runs import labels, read_ahead, remembered, trial_of
from dgcctl.core.runs.recipe_values import read_tree, values_of
from dgcctl.core.runs.run_ids import is_stamped, recipe_name

UNREADABLE = "unreadable"
RESUMABLE = frozenset({State.STOPPED, State.FAILED, State.DIED, State.QUEUED})


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
        # the recipe's tags and those given later, as one list: a filter knows no difference
        given = self.given
        tags = [*(self.recipe.get("tags") or []), *given.tags]
        # later ones win: what the run's own row says goes before a recipe key of that name
        return {
            **trial_of.named(self.dir, self.trial),
            **self.metrics,
            **self.recipe,
            "tags": tags,
            **self._row,
            "note": given.note or None,
            "name": self.name,
            "age": self.age,
            "host": self.status.host,
            "owner": self.owner,
        }

    @cached_property
    def trial(self) -> tuple[str, int] | None:
        """Of which sweep or search it is which trial; None of other runs."""
        return trial_of.told(self.dir)

    @property
    def owner(self) -> str:
        """Whose folder it is: the user's name, or number where it has none here."""
        return "" if self._user is None else user_name(self._user)

    @cached_property
    def _user(self) -> int | None:
        try:
            return self.dir.path.stat().st_uid
        except OSError:
            return None

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
    for name in _folders(runs):
        run = RunDir(runs / name)
        if _may_be_run(run):
            yield run


def _folders(runs: Path) -> list[str]:
    try:
        with os.scandir(runs) as entries:
            names = [
                entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(names, reverse=True)


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
        return Run(run, no_status(run), UNREADABLE, f"{run.id}: no status.json")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        return Run(run, no_status(run), UNREADABLE, f"{error.filename or run.path}: {why}")
    except (IntegrityError, ValueError, TypeError) as error:
        return Run(run, no_status(run), UNREADABLE, str(error))


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


def no_status(run: RunDir) -> Status:
    """What is taken for the status of a run that has none, or none that can be read."""
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


class RunList(list[Run]):
    """The runs of a folder, and what is remembered of them from one listing to the next."""

    memory: remembered.Memory | None = None

    def remember(self) -> None:
        """Keep what was read of the runs that have ended; the next listing need not read it."""
        if self.memory is None:
            return
        fresh = {}
        for run in self:
            known = self.memory.known.get(run.id)
            read = {key: run.__dict__[key] for key in _KEPT if key in run.__dict__}
            if run.problem or (known is not None and len(known["read"]) == len(read)):
                continue
            if "given" in read:
                read["given"] = {"tags": list(run.given.tags), "note": run.given.note}
            if run.__dict__.get("trial"):
                read["trial"] = list(run.trial or ())
            entry = self.memory.entry(run.id, run.status, metrics=run.metrics, read=read)
            if entry is not None:
                fresh[run.id] = entry
        self.memory.keep([run.id for run in self], fresh)


# what a run reads of its folder when it is first asked for it
_KEPT = ("by_script", "repeats", "recipe", "given", "trial", "_user")


def list_runs(runs: Path) -> RunList:
    """All runs of a folder, those that began last first."""
    names = _folders(runs)
    memory = remembered.of(runs, names)
    found = RunList()
    unread = names
    if memory is not None:
        known = {name: memory.recall(name) for name in names}
        found.extend(_recalled(RunDir(runs / name), e) for name, e in known.items() if e)
        unread = [name for name, entry in known.items() if not entry]
    read_ahead.ask_for((runs / name for name in unread), read_ahead.LISTED)
    found.extend(
        read_run(run) for run in map(RunDir, map(runs.joinpath, unread)) if _may_be_run(run)
    )
    found.sort(key=lambda run: (run.status.started, run.id), reverse=True)
    found.memory = memory
    return found


def _recalled(run: RunDir, entry: Mapping[str, Any]) -> Run:
    """A run as it was read once; what was not read then is read when it is asked for."""
    status = Status(**entry["status"])
    made = Run(run, status, str(status.state), metrics=entry["metrics"])
    read = dict(entry["read"])
    if given := read.get("given"):
        read["given"] = labels.Labels(tuple(given["tags"]), given["note"])
    if trial := read.get("trial"):
        read["trial"] = tuple(trial)
    made.__dict__.update(read)
    return made


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
