"""The columns of `runs ls`: those of every listing, or keys of one's own;
and the order of the rows.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Any

from dgc.errors import UsageError
from dgcctl.cli._ui.output import Form, TableColumn
from dgcctl.cli._ui.state_style import state_style
from dgcctl.core import numbers
from dgcctl.core.runs import filters
from dgcctl.core.runs.listing import Run

_COLUMNS = (
    TableColumn("id", "run"),
    TableColumn("state", style=state_style),
    TableColumn("epochs_done", "epoch", right=True),
    TableColumn("top1_error", show=numbers.percent, right=True),
    TableColumn("macs_executed", show=numbers.short_count, right=True, drop=2),
    TableColumn("seconds", show=numbers.duration, right=True, drop=3),
    TableColumn("age", show=numbers.age, right=True, drop=1),
    TableColumn("reason", show=lambda value: str(value or "")),
)
_KNOWN = {column.key: column for column in _COLUMNS} | {
    "top5_error": TableColumn("top5_error", show=numbers.percent, right=True),
    "started": TableColumn("started", show=lambda value: numbers.when(value)),
    **{
        key: TableColumn(key, show=numbers.short_count, right=True)
        for key in ("macs_dense", "macs_promised", "parameters")
    },
}


def table(
    runs: Sequence[Run], wanted: str | None, form: Form, every_run: Sequence[Run] = ()
) -> tuple[list[TableColumn], list[dict[str, Any]]]:
    """Columns and rows; JSON and CSV leave nothing out. Raises UsageError for a key that no run
    has, be it among those that are shown or of `every_run`.
    """
    whole = form in (Form.JSON, Form.CSV)
    rows = [_row(run, whole=whole) for run in runs]
    if wanted is not None:
        keys = [key.strip() for key in wanted.split(",") if key.strip()]
        if not keys:
            raise UsageError("--columns: names no column: write e.g. --columns lr,seed,top1_error")
        named = [_resolved(key, runs, every_run) for key in keys]
        for run, row in zip(runs, rows, strict=True):
            row.update({name: run.values.get(name, row.get(name)) for name in named})
        if "id" not in named:
            named.insert(0, "id")
        return [_column(name, keys) for name in named], rows
    shown = list(_COLUMNS)
    # of which run each is a repetition only where one is
    if whole or any(row["repeats"] for row in rows):
        shown.append(TableColumn("repeats", show=lambda value: str(value or "")))
    if form is Form.CSV:
        shown += [TableColumn("host"), TableColumn("owner"), *_config(runs, rows)]
    return shown, rows


def _config(runs: Sequence[Run], rows: Sequence[dict[str, Any]]) -> list[TableColumn]:
    """A column for each key of the recipes (in JSON they stand together, as `config`)."""
    for run, row in zip(runs, rows, strict=True):
        row.update({f"config.{key}": value for key, value in run.recipe.items()})
    names = dict.fromkeys(key for run in runs for key in run.recipe)
    return [TableColumn(f"config.{key}", f"config.{key}", show=_told) for key in names]


def _row(run: Run, *, whole: bool) -> dict[str, Any]:
    row = run.row()
    done = f"{row['epoch']}/{row['epochs']}" if row["epochs"] else "-"
    row = {**row, "epochs_done": done, "age": run.age}
    if whole:
        row |= {"host": run.status.host, "owner": run.owner, "config": run.recipe}
    return row


def _resolved(key: str, runs: Sequence[Run], every_run: Sequence[Run] = ()) -> str:
    """The whole name of a key, which may be given by its last part."""
    if key in _KNOWN or not runs:
        return key
    # those that are shown first: of the others only as many are read as it takes
    for run in itertools.chain(runs, every_run):
        if (name := filters.resolve_key(key, run.values)) in run.values:
            return name
    if key in filters.OF_TRIALS:
        return key
    known = {name for run in (*runs, *every_run) for name in run.values}
    leaves = {name.rpartition(".")[2] for name in known}
    near = difflib.get_close_matches(key, sorted(known | leaves), n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"--columns {key}: no run has such a key{hint}")


def _column(name: str, given: Sequence[str]) -> TableColumn:
    if name in _KNOWN:
        return _KNOWN[name]
    # as it was asked for: `lr`, and not `optim.lr`
    title = next((key for key in given if name == key or name.endswith(f".{key}")), name)
    return TableColumn(name, title, show=_told, right=True)


def _told(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"[{', '.join(map(_told, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def ordered(runs: Sequence[Run], key: str, every_run: Sequence[Run] = ()) -> list[Run]:
    """Newest first; by another key the smallest first (`-KEY`: the largest), what has no value
    last. Raises UsageError for a key that no run has.
    """
    if key == "started":
        return sorted(runs, key=lambda run: run.status.started, reverse=True)
    name, down = key.removeprefix("-"), key.startswith("-")
    if not name:
        raise UsageError("--sort: names no key: write e.g. --sort top1_error, or -top1_error")
    try:
        whole = _resolved(name, runs, every_run)
    except UsageError as error:
        raise UsageError(str(error).replace("--columns", "--sort")) from error
    having = [run for run in runs if _value(run, whole) is not None]
    others = [run for run in runs if _value(run, whole) is None]
    return [*sorted(having, key=lambda run: _place(_value(run, whole)), reverse=down), *others]


def _value(run: Run, name: str) -> Any:
    return run.values.get(name)


def _place(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before texts by their letters."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, str(value)
