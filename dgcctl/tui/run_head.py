"""The words above the charts: state, progress, speed, machine, target, and which letter is which
run.
"""

from __future__ import annotations

from collections.abc import Sequence

from dgcctl.core import numbers
from dgcctl.core.runs.listing import Run
from dgcctl.tui.screens.base import head
from dgcctl.tui.state import curves, run_facts
from dgcctl.tui.state.feed import Feed
from dgcctl.tui.state.processes import Sample
from dgcctl.tui.state.run_facts import Target
from dgcctl.tui.state.store import ROLES, Store, bar_role, reason, share_done, state_text
from dgcctl.tui.widgets.bar import progress
from dgcctl.tui.widgets.virtual_table import Cell


def title(store: Store, run: Run, charts: str, *, wide: bool) -> list[Cell]:
    """Letter, name, state, and how it is looked at; `charts` says which of them are shown."""
    view, sign = store.view, store.sign(run.id)
    smooth = f"smooth {view.weight:g}" if view.weight else "raw"
    settings = [
        f"x {view.axis}", f" · {smooth}", *([" · log y"] if view.log else []),
        *([" · clipped"] if view.clip else []), *([" · alone"] if view.alone else []),
    ]  # fmt: skip
    name = run.id if wide else run_facts.short_id(run.id)
    return [
        (f" {sign.letter} ", f"s{sign.colour}"),
        *head(name, (f"{state_text(run.state)}  ", ROLES.get(run.state, ""))),
        *[(text, "dim") for text in settings],
        (f"  {charts}", "accent"),
    ]


def lines(
    store: Store, run: Run, target: Target | None, overlay: Sequence[Run], *, wide: bool
) -> list[list[Cell]]:
    feed = store.feed(run.id)
    return [
        _progress(run, feed),
        _figures(store, run, feed, target),
        _last_line(store, run, feed, overlay, wide),
    ]


def _progress(run: Run, feed: Feed) -> list[Cell]:
    share = share_done(run)
    status = run.status
    told: list[Cell] = [
        (f"{progress(share, 8)} {share:4.0%}  ", bar_role(run)),
        f"step {numbers.part(status.step, status.steps)}  ",
        f"epoch {status.epoch}/{status.epochs}  " if status.epochs else "",
        f"{numbers.spaced_duration(status.seconds)} ",
    ]
    eta = feed.last("perf.eta_s")
    if run.state == "running" and eta is not None:
        told.append((f" ETA {numbers.spaced_duration(eta)}", "accent"))
    rate = feed.last("perf.images_per_s")
    if rate is not None:
        told.append(f"  {rate:.0f} images/s")
    return told


def _figures(store: Store, run: Run, feed: Feed, target: Target | None) -> list[Cell]:
    """The gap is that of the last error, by which a run is judged in the end."""
    best, last = store.best(run), store.last(run)
    told: list[Cell] = [f"error {numbers.decimals(last, 2)}  best {numbers.decimals(best, 2)}  "]
    if target is not None:
        met = last is not None and target.met(last)
        sign = "✓" if met else "…"
        text = f"{sign} target {target.value:g}±{target.tolerance:g} {curves.gap(last, target)}  "
        told.append((text, "good" if met else "target"))
    return [*told, *_machine(store.samples.get(run.id), feed)]


def _machine(sample: Sample | None, feed: Feed) -> list[Cell]:
    """Of the process where it lives here; else its own last account."""
    held = feed.last("perf.gpu_memory")
    gpu_memory = f" {numbers.rough_size(held)}" if held else ""
    if sample is None:
        gpu = f"  GPU{gpu_memory}" if held else ""
        return [(f"memory {numbers.rough_size(feed.last('perf.rss'))}{gpu}", "dim")]
    gpu = "" if sample.gpu is None else f"  GPU {sample.gpu:.0f}%{gpu_memory}"
    return [
        f"CPU {sample.cpu:.0f}% {numbers.rough_size(sample.rss)}  host"
        f" {sample.host_memory:.0f}%{gpu}"
    ]


def _last_line(
    store: Store, run: Run, feed: Feed, overlay: Sequence[Run], wide: bool
) -> list[Cell]:
    """Why it ended; else which letter is which run; else its labels."""
    why = reason_line(run)
    if why:
        return [(why, ROLES.get(run.state, "bad"))]
    if feed.notice:
        return [(feed.notice, "warn")]
    if len(overlay) < 2:
        return [*labels(run), (run.recipe.get("title", ""), "dim")]
    short = not wide or len(overlay) > 3
    signs = [(store.sign(shown.id), shown.id) for shown in overlay]
    return [
        (f"{sign.letter} {run_facts.short_id(run_id) if short else run_id}  ", f"s{sign.colour}")
        for sign, run_id in signs
    ]


def reason_line(run: Run) -> str:
    """Why a run ended otherwise than done."""
    if run.state == "died":
        how = (
            "its script goes on with it, started again with resume=True"
            if run.by_script
            else "r resumes from the newest checkpoint"
        )
        return f"process {run.status.pid} is gone: {how}"
    return reason(run) if run.problem or run.state in ("failed", "stopped") else ""


def labels(run: Run) -> list[Cell]:
    """What a person said about a run: its tags, its note."""
    given = run.given
    tags = [(f"#{tag}  ", "accent") for tag in given.tags]
    return [*tags, (f"{given.note}  ", "")] if given.note else [*tags]
