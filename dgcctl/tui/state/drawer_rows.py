"""Rows of the drawer: log lines, checkpoints, facts and metrics of one run."""

from __future__ import annotations

import re
from typing import Any

from dgc.errors import IntegrityError
from dgcctl.core import numbers
from dgcctl.core.launch.log_tail import log_lines
from dgcctl.core.runs.listing import Run, end_of_schedule, evaluated_macs
from dgcctl.tui import raster
from dgcctl.tui.state import run_facts
from dgcctl.tui.state.alerts import skipped_text
from dgcctl.tui.state.feed import Feed
from dgcctl.tui.state.run_facts import Target
from dgcctl.tui.state.store import Store, reason, state_text
from dgcctl.tui.widgets.drawer import SearchResult
from dgcctl.tui.widgets.virtual_table import Row

LOG_LINES = 2000
LISTED_AT_MOST = 500  # metric names: a search narrows them
# by kind, not by word: an evaluation says "error" too. The trainer writes `[time] level: text`;
# Python its own.
_KINDS = (
    ("bad", re.compile(r"(\S+Z )?error: |Traceback |[\w.]+(Error|Exception|Interrupt)(:|$)")),
    ("warn", re.compile(r"(\S+Z )?warning: |.*\b\w*Warning: ")),
)


def find(kind: str, search: str, store: Store, run: Run, targets: list[Target]) -> SearchResult:
    """The rows of one list that contain the search (case does not matter)."""
    if kind == "metrics":
        return _metrics(store, store.feed(run.id), search.lower())
    rows = _rows(kind, store.feed(run.id), run, targets)
    kept = [row for row in rows if search.lower() in _text(row).lower()] if search else rows
    return SearchResult(kept, len(kept), len(rows))


def _rows(kind: str, feed: Feed, run: Run, targets: list[Target]) -> list[Row]:
    match kind:
        case "log":
            return _log(run)
        case "checkpoints":
            return _checkpoints(run, feed)
        case "facts":
            return [Row(key, ((key, "dim"), value)) for key, value in _facts(run, feed, targets)]
    return []


def _text(row: Row) -> str:
    return " ".join(cell if isinstance(cell, str) else cell[0] for cell in row.cells)


def _log(run: Run) -> list[Row]:
    try:
        lines = log_lines(run.dir.log, LOG_LINES)
    except IntegrityError as error:
        return [Row("unreadable", ((str(error), "bad"),))]
    return [Row(str(index), ((line, _log_role(line)),)) for index, line in enumerate(lines)]


def _log_role(line: str) -> str:
    return next((role for role, kind in _KINDS if kind.match(line)), "")


def _checkpoints(run: Run, feed: Feed) -> list[Row]:
    """Saved states, newest first; those that were deleted since are said to be."""
    last = run_facts.document(run.dir, "last.json").get("step")
    best = run_facts.document(run.dir, "best.json").get("step")
    # by its path: a checkpoint that a resume wrote again is listed once
    saved = {event.get("path"): event for event in feed.checkpoints}
    return [_checkpoint(run, event, last, best) for event in reversed(saved.values())]


def _checkpoint(run: Run, event: dict[str, Any], last: Any, best: Any) -> Row:
    step, path = event.get("step"), str(event.get("path"))
    there = (run.dir.path / path).is_dir()
    signs = " ".join(name for name, of in (("last", last), ("best", best)) if of == step)
    role = "" if there else "dim"
    cells = (
        f"{step:,}", str(event.get("epoch", "")), signs, numbers.rough_size(event.get("bytes")),
        numbers.stamp(event.get("t", 0.0)),
        f"{event.get('ms', 0):.0f}", path if there else f"{path} (deleted)",
    )  # fmt: skip
    return Row(
        path, tuple((cell, "good" if index == 2 else role) for index, cell in enumerate(cells))
    )


def _facts(run: Run, feed: Feed, found: list[Target]) -> list[tuple[str, str]]:
    model, env, git = (
        run_facts.document(run.dir, f"{name}.json") for name in ("model", "env", "git")
    )
    # of the network that was evaluated; before that, as they will be when the schedule ends
    macs = evaluated_macs(run.metrics) or end_of_schedule(model)
    told = [
        ("state", f"{state_text(run.state)} {reason(run)}"),
        *[("target", f"{t.metric} {t.value:g} ± {t.tolerance:g} ({t.source})") for t in found],
        *_alerts(feed),
        ("recipe", f"{run.name}: {run.recipe.get('title', '')}"),
        ("parameters", numbers.rough_count(model.get("parameters"))),
        (
            "MACs",
            "  ".join(
                f"{name} {numbers.rough_count(macs.get(name))}"
                for name in ("dense", "promised", "executed")
            ),
        ),
        ("started", numbers.stamp(run.status.started)),
        (
            "machine",
            (
                f"{run.status.host}  {env.get('device', '')}  pid {run.status.pid}  threads"
                f" {env.get('threads', '-')}"
            ),
        ),
        (
            "torch",
            str(
                (env.get("torch") or {}).get("version", "-")
                if isinstance(env.get("torch"), dict)
                else "-"
            ),
        ),
        (
            "code",
            str(git.get("commit") or "-")[:12]
            + (" with uncommitted changes" if git.get("dirty") else ""),
        ),
        ("folder", str(run.dir.path)),
    ]
    return told + [(key, str(run.recipe[key])) for key in run.recipe if "." in key]


def _alerts(feed: Feed) -> list[tuple[str, str]]:
    told = [
        (f"alert ({event.get('level', '?')})", str(event.get("text", "")))
        for event in feed.alerts[-20:]
    ]
    told += [("resumed", _resumed(event)) for event in feed.resumes]
    return (
        told
        + ([("log", skipped_text(feed))] if feed.skipped else [])
        + ([("log", feed.notice)] if feed.notice else [])
    )


def _resumed(event: dict[str, Any]) -> str:
    place, exact = f"at step {event.get('step')}", event.get("exact", True)
    if exact is None:  # of a script's run nobody knows
        return place
    return f"{place}, exactly" if exact else f"{place}, not exactly: {event.get('differences')}"


def _metrics(store: Store, feed: Feed, search: str) -> SearchResult:
    """Names first: with 12,000 of them only those that are shown cost anything."""
    names = feed.names()
    # names alone are searched: their values are asked for those that are shown
    kept = [name for name in names if search in name.lower()]
    pins = set(store.view.metrics)
    rows = [
        Row(
            name,
            (
                ("▴" if name in pins else "", "accent"),
                name,
                f"{feed.count(name):,}",
                _last(feed, name),
            ),
        )
        for name in kept[:LISTED_AT_MOST]
    ]
    return SearchResult(rows, len(kept), len(names))


def _last(feed: Feed, name: str) -> str:
    value = feed.last(name)
    return "-" if value is None else raster.short(value)
