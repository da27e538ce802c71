"""`dgcctl runs compare` and `dgcctl runs diff`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import UsageError
from dgc.run.paths import RunDir
from dgc.talk import shown
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.core import garbage, numbers, settings
from dgcctl.core.compare.rundiff import diff_runs
from dgcctl.core.compare.seeds import SeedGroup, Summary, figure_names, other_data
from dgcctl.core.compare.seeds import compare as compare_runs
from dgcctl.core.runs import filters, find, listing, read_ahead
from dgcctl.core.runs.record import read_record
from dgcctl.core.runs.run_ids import is_stamped, short_forms

# what a narrow terminal leaves out, the last one first
_LEAST_SAID = ("macs_promised", "seconds", "macs_dense", "top5_error", "parameters")
_TITLES = {
    "top1_error": "top-1 error %",
    "top5_error": "top-5 error %",
    "loss": "loss",
    "ema_top1_error": "top-1 error %, averaged",
    "ema_top5_error": "top-5 error %, averaged",
    "ema_loss": "loss, averaged",
    "macs_dense": "MACs dense",
    "macs_promised": "MACs promised",
    "macs_executed": "MACs executed",
    "parameters": "parameters",
    "seconds": "took",
}


@tabular
@garbage.left_alone()
def compare(
    run: options.RunsOrFilters = None,
    where: options.Where = None,
    over: Annotated[
        str, typer.Option("--over", metavar="KEYS", help="Recipe keys that are averaged over.")
    ] = "seed",
    runs_dir: options.RunsDir = None,
    *,
    form: output.Form,
) -> None:
    """Runs side by side: groups that differ in nothing but the seed, as mean ± standard deviation
    (n).
    """
    chosen = select(run or [], where or [], settings.runs_dir(runs_dir))
    read_ahead.ask_for((one.path for one in chosen), read_ahead.RECORDED)
    records = [read_record(one) for one in chosen]
    groups = compare_runs(records, over=[key for key in over.split(",") if key])
    rows = [_row(group) for group in groups]
    output.table("groups", _columns(groups, form), rows, form)
    if note := other_data(records):
        diagnostics.warn(note)
    for group in groups:
        for note in group.notes:
            diagnostics.warn(f"{group.label}: {note}")


def select(names: list[str], where: list[str], folder: Path) -> list[RunDir]:
    """Runs by name, and those that fit a filter, each once: a word with an operator is part of a
    filter. A usage error where none is named.
    """
    chosen = [find.find_run(name, folder) for name in names if not filters.is_filter(name)]
    if where := [*where, *filter(filters.is_filter, names)]:
        terms = filters.parse_filters(where)
        every_run = listing.list_runs(folder)
        fits = filters.select(every_run, terms)
        chosen += [run.dir for run in reversed(fits) if _readable(run)]
        every_run.remember()
    if not chosen and where:
        raise UsageError(f"no run fits {' '.join(where)}: see `dgcctl runs ls`")
    if not chosen:
        raise typer.BadParameter("name at least one run, or give a FILTER: see `dgcctl runs ls`")
    return list({run.path.resolve(): run for run in chosen}.values())


def _readable(run: listing.Run) -> bool:
    """Whether a run that a filter chose can be read; one that cannot is told of, and the rest is
    compared.
    """
    if run.state == listing.UNREADABLE:
        diagnostics.warn(f"{run.id}: left out ({run.problem})")
    return run.state != listing.UNREADABLE


def _row(group: SeedGroup) -> dict[str, Any]:
    return {
        **group.varied,
        "n": max((summary.n for summary in group.metrics.values()), default=0),
        "seeds": group.seeds,
        "runs": group.runs,
        "run_ids": " ".join(group.runs),
        "counted": group.counted,
        "notes": group.notes,
        **{name: vars(summary) for name, summary in group.metrics.items()},
        **{f"{name}_mean": summary.mean for name, summary in group.metrics.items()},
        **{f"{name}_std": summary.std for name, summary in group.metrics.items()},
    }


def _columns(groups: list[SeedGroup], form: output.Form) -> list[TableColumn]:
    """What differs, n, and the figures; in CSV mean and standard deviation as columns of their own.
    A table for a paper has no ids.
    """
    varied = [TableColumn(key, key) for key in (groups[0].varied if groups else {})]
    names = [
        name
        for name in figure_names(group.metrics for group in groups)
        if any(name in group.metrics for group in groups)
    ]
    if form is output.Form.CSV:
        return [
            *varied,
            TableColumn("n"),
            *(TableColumn(f"{name}_{part}") for name in names for part in ("mean", "std")),
            TableColumn("run_ids"),
        ]
    ids = [TableColumn("runs", show=_run_names, drop=len(_LEAST_SAID) + 1)]
    return [
        *varied,
        TableColumn("n", right=True),
        *(_figure(name) for name in names),
        *(ids if form is output.Form.TEXT else []),
    ]


def _run_names(ids: list[str]) -> str:
    """The newest by the short form of its id, which names it in every command, and how many more
    there are.
    """
    newest = max(ids)
    named = short_forms(newest)[0] if is_stamped(newest) else newest
    return f"{named} +{len(ids) - 1}" if len(ids) > 1 else named


def _figure(name: str) -> TableColumn:
    return TableColumn(
        name,
        _TITLES.get(name, name),
        show=lambda value: _spread(name, value),
        right=True,
        drop=_LEAST_SAID.index(name) + 1 if name in _LEAST_SAID else 0,
    )


def _spread(name: str, value: dict[str, Any] | None) -> str:
    if value is None:
        return "-"
    summary = Summary(**value)
    show = _FORMS.get(name, _two_places if name in _TITLES else numbers.figure)
    mean = show(summary.mean)
    return f"{mean} ± {show(summary.std)}" if summary.std else mean


def _two_places(value: float | None) -> str:
    return numbers.decimals(value, 2)


_FORMS: dict[str, Callable[[float | None], str]] = {
    "loss": numbers.decimals,
    "seconds": numbers.duration,
    **dict.fromkeys(("macs_dense", "macs_promised", "macs_executed", "parameters"), numbers.count),
}


@tabular
def diff(
    a: options.RunArgument,
    b: options.RunArgument,
    patch: Annotated[
        bool, typer.Option("--patch", help="Also the difference of the uncommitted sources.")
    ] = False,
    runs_dir: options.RunsDir = None,
    *,
    form: output.Form,
) -> None:
    """What differs between two runs: recipe, code, data, environment, result."""
    folder = settings.runs_dir(runs_dir)
    found = diff_runs(read_record(find.find_run(a, folder)), read_record(find.find_run(b, folder)))
    rows = [vars(row) for row in found.differences]
    columns = [
        TableColumn("section"),
        TableColumn("key"),
        TableColumn("a", found.a),
        TableColumn("b", found.b),
    ]
    output.table("differences", columns, rows, form, patch=found.patch, a=found.a, b=found.b)
    if patch and form is output.Form.TEXT:
        output.write("".join(f"{shown(line)}\n" for line in found.patch))
    elif found.patch:
        diagnostics.note(
            f"uncommitted sources differ too ({len(found.patch)} lines): --patch shows them"
        )
    if not rows and not found.patch:
        diagnostics.note("no difference")
