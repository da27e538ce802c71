"""Several runs side by side: grouped over seeds, with mean, standard deviation and n of every
figure.
"""

from __future__ import annotations

import difflib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from dgc.errors import UsageError
from dgc.run.events import EventKind
from dgc.run.metrics import RESULTS
from dgc.run.status import State
from dgcctl.core.runs import filters
from dgcctl.core.runs.record import RunRecord, own_figures

RESULT_KEYS = RESULTS
COST_KEYS = ("macs_dense", "macs_promised", "macs_executed", "parameters", "seconds")


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1; None where n < 2) of n runs."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(
            statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else None,
            len(values),
        )


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in nothing but the seed.
    `varied` holds the recipe keys in which the groups differ.
    """

    varied: dict[str, Any]
    runs: list[str]
    seeds: list[int]
    counted: list[str]
    metrics: dict[str, Summary]
    notes: list[str]

    @property
    def label(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.varied.items()) or "all"


def compare(runs: Sequence[RunRecord], *, over: Iterable[str] = ("seed",)) -> list[SeedGroup]:
    """Group finished and unfinished runs alike;
    what is unfinished is left out of the figures and said in `notes`.

    Runs on other data are never averaged together: the data digest is a part of a group's identity.
    """
    pooled = _whole_keys(over, runs)
    groups: dict[bytes, list[RunRecord]] = {}
    for run in runs:
        # the order of the groups is that of the runs as they were given
        groups.setdefault(_identity(run, pooled), []).append(run)
    # what is the same in all groups says nothing about any of them
    keys = varied_keys([_shown(members[0], pooled) for members in groups.values()])
    return [_group(members, keys, pooled) for members in groups.values()]


def other_data(runs: Sequence[RunRecord]) -> str:
    """One sentence where the runs were trained on different data; "" where all are of the same."""
    names = {
        str(run.data["digest"]): str(run.data.get("name") or "data without a name")
        for run in runs
        if run.data.get("digest")
    }
    if len(names) < 2:
        return ""
    # two data sets of one name are told apart by their digests, others by their names
    twice = len(set(names.values())) < len(names)
    told = [f"{name} {digest[:12]}" if twice else name for digest, name in names.items()]
    return f"not the same data ({', '.join(told)}): figures of different data do not compare"


def _whole_keys(given: Iterable[str], runs: Sequence[RunRecord]) -> tuple[str, ...]:
    """The keys that are averaged over, which may be given by their last part. Refuses one that no
    recipe has: nothing would be averaged over it, in silence.
    """
    known = dict.fromkeys(key for run in runs for key in run.recipe)
    whole = []
    for key in given:
        try:
            name = filters.resolve_key(key, known)
        except UsageError as error:
            raise UsageError(str(error).replace("filter:", "--over")) from error
        if name not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else "as seed or optim.lr: `dgcctl recipes show` lists them"
            )
            raise UsageError(f"--over {key}: no such recipe key ({hint})")
        whole.append(name)
    return tuple(whole)


def _identity(run: RunRecord, pooled: tuple[str, ...]) -> bytes:
    content = {"recipe": run.parting(pooled), "data": run.data.get("digest")}
    # the digest of the data is part of it: a mean over different data means nothing
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def _shown(run: RunRecord, pooled: tuple[str, ...]) -> dict[str, Any]:
    digest = run.data.get("digest")
    return {**run.parting(pooled), "data.digest": digest and str(digest)[:12]}


def varied_keys(recipes: Sequence[dict[str, Any]]) -> list[str]:
    """The keys whose value is not the same in all, in the order of the first."""
    names = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [
        key for key in names if any(recipe.get(key) != recipes[0].get(key) for recipe in recipes)
    ]


def _group(members: list[RunRecord], keys: list[str], pooled: tuple[str, ...]) -> SeedGroup:
    shown = _shown(members[0], pooled)
    # all members are listed, only finished ones are counted
    done = [run for run in members if run.state is State.DONE]
    counted, repeated = _one_a_seed(done, pooled)
    return SeedGroup(
        varied={key: shown.get(key) for key in keys},
        runs=[run.id for run in members],
        seeds=list(dict.fromkeys(run.seed for run in members)),
        counted=[run.id for run in counted],
        metrics=_summaries(counted),
        notes=_notes(members, done, counted, repeated),
    )


def _one_a_seed(
    done: list[RunRecord], pooled: tuple[str, ...]
) -> tuple[list[RunRecord], dict[str, list[str]]]:
    """One run for each value of what is averaged over,
    the first that was started; kept run -> those it stands for.

    A run repeated with the same seed is no second sample: it would make n larger and the deviation
    smaller.
    """
    kept: dict[bytes, RunRecord] = {}
    repeated: dict[str, list[str]] = {}
    # by their start, so that it does not depend on the order of the listing
    for run in sorted(done, key=lambda run: (run.status.started, run.id)):
        values = [run.recipe.get(key) for key in dict.fromkeys((*pooled, "seed"))]
        first = kept.setdefault(orjson.dumps(values), run)
        if first is not run:
            repeated.setdefault(first.id, []).append(run.id)
    chosen = {run.id for run in kept.values()}
    # in the order of the listing again
    return [run for run in done if run.id in chosen], repeated


def _summaries(done: list[RunRecord]) -> dict[str, Summary]:
    columns = [figures(run) for run in done]
    found = {
        name: [column[name] for column in columns if name in column]
        for name in figure_names(columns)
    }
    return {name: Summary.of(values) for name, values in found.items() if values}


def figure_names(found: Iterable[Iterable[str]]) -> list[str]:
    """Results, what scripts called their own, and costs: in the order of columns."""
    known = (*RESULT_KEYS, *COST_KEYS)
    own = dict.fromkeys(name for names in found for name in names if name not in known)
    return [*RESULT_KEYS, *own, *COST_KEYS]


def figures(run: RunRecord) -> dict[str, float]:
    """The numbers of one run that can be averaged; of a script's run also those that have names of
    its own, and where it evaluated nothing what it logged last.
    """
    values = {**run.status.logged, **run.metrics, "seconds": run.seconds}
    known = (*RESULT_KEYS, *COST_KEYS)
    own = own_figures(values, known, run.recipe) if run.by_script else {}
    return {
        key: float(values[key])
        for key in (*RESULT_KEYS, *own, *COST_KEYS)
        # bool is a number to Python, and none to a table
        if isinstance(values.get(key), int | float) and not isinstance(values[key], bool)
    }


_NAMED = 3  # repetitions that a note names; a thousand would fill the screen


def _notes(
    members: list[RunRecord],
    done: list[RunRecord],
    counted: list[RunRecord],
    repeated: dict[str, list[str]],
) -> list[str]:
    # every run that is not counted is named, so that nobody has to count
    by_id = {run.id: run for run in done}
    notes = [f"{run.id}: {run.state}, left out" for run in members if run.id not in by_id]
    for first, again in repeated.items():
        told = [_repetition(by_id[first], by_id[other]) for other in again]
        told.sort(key=lambda text: "(" not in text)  # those that say something of themselves first
        named = ", ".join(told[:_NAMED])
        named += f" and {len(again) - _NAMED} more" if len(again) > _NAMED else ""
        notes.append(
            f"seed {by_id[first].seed} counts once, by its first run {first}; left out: {named}"
        )
    notes += [f"{name} differs within the group" for name in _mixed(done)]
    notes += [f"{run.id}: not an exact resume" for run in counted if _inexact(run)]
    return notes


def _repetition(first: RunRecord, again: RunRecord) -> str:
    return again.id if _results(again) == _results(first) else f"{again.id} (with another result)"


def _results(run: RunRecord) -> list[tuple[str, float]]:
    found = figures(run)
    return [(key, value) for key, value in found.items() if key not in COST_KEYS]


def _mixed(done: list[RunRecord]) -> list[str]:
    """What of the circumstances is not the same in all runs of a group (their mean mixes it)."""
    seen: dict[str, set[Any]] = {
        # commit and patch together: two trees of one commit may differ
        "code": {(run.git.get("commit"), run.git.get("patch_sha256")) for run in done},
        "machine": {(run.status.host, run.env.get("device")) for run in done},
        "torch": {
            str(run.env.get("torch", {}).get("version"))
            for run in done
            if isinstance(run.env.get("torch"), dict)
        },
    }
    return [name for name, values in seen.items() if len(values) > 1]


def _inexact(run: RunRecord) -> bool:
    return any(event.get("exact") is False for event in run.of_kind(EventKind.RESUME))
