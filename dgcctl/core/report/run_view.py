"""What a report shows of each run: short series, gate maps, costs, verdicts. Reads the run
directory, draws nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dgc.errors import DgcError
from dgc.run import metrics
from dgc.run.events import Event, EventKind
from dgc.run.files import read_json
from dgc.talk import shown
from dgcctl.core.compare.seeds import varied_keys
from dgcctl.core.runs.record import RunRecord

BINS = 240  # points of a curve that stands alone
MANY_BINS = 48  # and of each of many, which would hide one another


@dataclass(frozen=True)
class Series:
    """A curve over epochs: the mean of each bin of steps,
    and the bin's smallest and largest value.
    """

    x: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class RunView:
    """One run, ready to be drawn. `group` holds runs together that differ in the seed alone."""

    facts: RunRecord
    label: str
    group: int
    val_error: Series
    steps: dict[str, Series]  # of each metric of the training steps that a report shows
    gates: list[dict[str, Any]]
    notes: list[str]


def views(runs: Sequence[RunRecord]) -> list[RunView]:
    """All runs of a report, labelled by what differs between them."""
    # without the seed: runs that differ in nothing else are one group
    recipes = [run.parting(["seed"]) for run in runs]
    keys = varied_keys(recipes)
    groups: list[dict[str, Any]] = []
    # many curves in one picture: fewer points each
    bins = max(MANY_BINS, BINS // len(runs))
    found = []
    for run, recipe in zip(runs, recipes, strict=True):
        if recipe not in groups:
            groups.append(recipe)
        named = ", ".join(f"{key.rpartition('.')[2]} {recipe.get(key)}" for key in keys) or str(
            run.recipe["name"]
        )
        found.append(_view(run, shown(named), groups.index(recipe), bins))
    return found


def _view(run: RunRecord, label: str, group: int, bins: int) -> RunView:
    per_epoch = steps_per_epoch(run)
    steps, evals = run.of_kind(EventKind.STEP), run.of_kind(EventKind.EVAL)

    def curve(rows: list[Event], key: str) -> Series:
        return binned(
            # evaluations are few, and each is shown
            rows,
            key,
            lambda row: row["step"] / per_epoch,
            bins if rows is steps else len(rows),
        )

    return RunView(
        facts=run,
        label=label,
        group=group,
        val_error=curve(evals, "top1_error"),
        steps={metric.name: curve(steps, metric.name) for metric, _ in metrics.reported()},
        gates=gate_maps(run),
        notes=_notes(run),
    )


def steps_per_epoch(run: RunRecord) -> float:
    """Optimizer steps of one epoch: counted where a whole one was run, else as planned."""
    # of the first epoch, whose steps are counted whole only when a later one has begun
    rows = run.of_kind(EventKind.STEP)
    first = sum(row["epoch"] == rows[0]["epoch"] for row in rows) if rows else 0
    if rows and rows[-1]["epoch"] > rows[0]["epoch"]:
        return float(first)
    epochs = run.status.epochs or 1
    return max(1.0, run.status.steps / epochs, float(first))


def binned(rows: Sequence[Event], key: str, place: Callable[[Event], float], bins: int) -> Series:
    """At most `bins` points; rows without a number (NaN is null in the log) are left out."""
    kept = [row for row in rows if isinstance(row.get(key), int | float)]
    series = Series()
    size = max(1, -(-len(kept) // max(1, bins)))
    for start in range(0, len(kept), size):
        part = kept[start : start + size]
        values = [float(row[key]) for row in part]
        series.x.append(statistics.fmean(place(row) for row in part))
        series.mean.append(statistics.fmean(values))
        series.low.append(min(values))
        series.high.append(max(values))
    return series


def gate_maps(run: RunRecord) -> list[dict[str, Any]]:
    """The gate maps of all epochs, in order; unreadable ones are left out."""
    found = []
    # the names have leading zeros, so that their order is that of the epochs
    for path in sorted(run.run.gates.glob("epoch-*.json")):
        try:
            found.append(read_json(path))
        except (OSError, DgcError):
            continue
    return found


def _notes(run: RunRecord) -> list[str]:
    notes = [
        str(event.get("text", ""))
        for event in run.of_kind(EventKind.ALERT)
        # info is for the log; what warned belongs into the report
        if event.get("level") != "info"
    ]
    resumes = run.of_kind(EventKind.RESUME)
    if resumes:
        notes.append(f"resumed {len(resumes)} time{'s' if len(resumes) > 1 else ''}{_how(resumes)}")
    if run.git.get("dirty"):
        notes.append("ran with uncommitted sources (kept in the run directory)")
    return notes


def _how(resumes: Sequence[Event]) -> str:
    told = [event.get("exact", True) for event in resumes]
    # of a script's run nobody knows
    if None in told:
        return ""
    return ", exactly" if all(told) else ", NOT exactly"


def mac_progress(view: RunView) -> dict[str, Series]:
    """Promised and executed MACs of the dynamic layers over epochs,
    as shares of the same layers without gates.
    """
    shares = {"promised": Series(), "executed": Series()}
    for gates in view.gates:
        layers = gates.get("layers", [])
        dense = sum(layer.get("dense_macs", 0) for layer in layers)
        if not dense:
            continue
        for kind, series in shares.items():
            value = sum(layer.get(f"{kind}_macs", 0) for layer in layers) / dense
            series.x.append(float(gates.get("step", 0)) / steps_per_epoch(view.facts))
            series.mean.append(value)
    return shares


def inactive_share(view: RunView) -> Series:
    """Share of input channels that the schedule has switched off,
    over epochs, all dynamic layers together.
    """
    layers = view.gates[-1].get("layers", []) if view.gates else []
    channels = sum(layer.get("in_channels", 0) for layer in layers)
    if not channels:
        return Series()
    per_epoch = steps_per_epoch(view.facts)
    counted = binned(
        view.facts.of_kind(EventKind.STEP), "inactive", lambda row: row["step"] / per_epoch, BINS
    )
    return Series(counted.x, [value / channels for value in counted.mean])


def short_names(names: Sequence[str]) -> list[str]:
    """Layer names without the parts that all of them begin or end with."""
    parts = [shown(name).split(".") for name in names]
    # one part is left of each name: a layer without a name is no layer
    while len(parts) > 1 and all(len(part) > 1 and part[0] == parts[0][0] for part in parts):
        parts = [part[1:] for part in parts]
    while len(parts) > 1 and all(len(part) > 1 and part[-1] == parts[0][-1] for part in parts):
        parts = [part[:-1] for part in parts]
    return [".".join(part) for part in parts]
