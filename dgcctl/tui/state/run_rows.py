"""The rows of the Runs screen: which columns there are, and what stands in them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dgcctl.core import numbers
from dgcctl.core.compare.seeds import varied_keys
from dgcctl.core.runs.listing import Run
from dgcctl.core.runs.record import computing_keys
from dgcctl.tui import raster
from dgcctl.tui.state import run_facts
from dgcctl.tui.state.store import ROLES, Store, bar_role, share_done, state_text
from dgcctl.tui.widgets.bar import progress
from dgcctl.tui.widgets.virtual_table import ListColumn, Row

GROUP = "group:"
WHOLE_ID = 150  # columns of screen from which a run's whole id has room
NARROW = 60  # columns of screen; with fewer a name loses its beginning
_BAR, _WIDE_BAR = 4, 10
_APART = 3  # values that a group row names; of more it says how many
COLUMNS = (
    ListColumn("", 3), ListColumn("state", 12), ListColumn("run", least=19),
    ListColumn("progress", _BAR + 5, drop=1), ListColumn("epoch", 7, True, 6),
    ListColumn("seed", 5, True, 4), ListColumn("lr", 6, True, 3),
    ListColumn("best", 6, True), ListColumn("last", 6, True, 2), ListColumn("target", 10, True, 7),
    ListColumn("images/s", 9, True, 8), ListColumn("tags", 14, drop=9),
    ListColumn("age", 4, True, 5),
)  # fmt: skip
# over which column a sort is told
_SORTED = {"age": "age", "state": "state", "recipe": "run", "error": "best", "progress": "progress",
           "lr": "lr", "seed": "seed", "speed": "images/s"}  # fmt: skip
_FALLING = ("progress", "speed")  # the largest first, unless reversed


def columns(store: Store, width: int, *, wide: bool) -> tuple[ListColumn, ...]:
    """The columns on a screen so wide; the one that sorts says so in its title."""
    view = store.view
    letters = max((len(store.sign(run_id).letter) for run_id in store.runs), default=1)
    tagged = any(run.given.tags for run in store.runs.values())
    arrow = "▼" if (view.sort in _FALLING) != view.reverse else "▲"
    found = []
    for column in COLUMNS:
        if column.title == "":
            column = replace(column, width=2 + letters)
        elif column.title == "progress" and wide:
            column = replace(column, width=_WIDE_BAR + 5)
        elif column.title == "state" and width < NARROW:
            column = replace(column, width=10)
        elif column.title == "run":
            least = 36 if width >= WHOLE_ID else 19 if width >= NARROW else 12
            column = replace(column, least=least, tail=width < NARROW)
        elif column.title == "tags" and not tagged:
            column = replace(column, drop=99, width=width)  # never has room
        if column.title and column.title == _SORTED[view.sort]:
            column = replace(column, title=f"{column.title}{arrow}")
        found.append(column)
    return tuple(found)


def row(store: Store, run: Run, now: float, width: int, *, wide: bool, indent: str = "") -> Row:
    sign, view = store.sign(run.id), store.view
    mark = "●" if run.id in view.marks else "○" if run.id in view.hidden else " "
    share = share_done(run)
    best, target = store.best(run), run.target
    met = target is not None and best is not None and best <= sum(target)
    speed = store.speed(run)
    return Row(
        run.id,
        (
            (f"{mark}{sign.letter}{'▴' if run.id in view.pins else ''}", f"s{sign.colour}"),
            (state_text(run.state), ROLES.get(run.state, "")),
            indent + (run.id if width >= WHOLE_ID else run_facts.short_id(run.id)),
            (_progress(run, share, _WIDE_BAR if wide else _BAR), bar_role(run)),
            f"{run.status.epoch}/{run.status.epochs}" if run.status.epochs else "-",
            _value(run.recipe.get("seed")),
            _value(run.recipe.get("optim.lr", run.recipe.get("lr"))),
            numbers.decimals(best, 2),
            numbers.decimals(store.last(run), 2),
            (f"{'✓ ' if met else ''}{_target(target)}", "good" if met else "dim"),
            "-" if speed is None else raster.short(round(speed)),
            (" ".join(run.given.tags), "accent"),
            (numbers.age(now - run.status.started), "dim"),
        ),
    )


def _progress(run: Run, share: float, width: int) -> str:
    """A line for what is on its way or broke off; a run that is done needs none."""
    drawn = " " * width if run.state == "done" else progress(share, width)
    return f"{drawn} {share:4.0%}"


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _target(target: tuple[float, float] | None) -> str:
    return "-" if target is None else f"{target[0]:g}±{target[1]:g}"


def grouped(found: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in nothing but the seed, together."""
    groups: dict[str, list[Run]] = {}
    # a group is what computes the same: labels, places and saving intervals do not part it
    for run in found:
        keys_of = computing_keys(run.recipe, without=("seed",))
        groups.setdefault(run.name + repr(sorted(keys_of.items(), key=str)), []).append(run)
    return list(groups.values())


def set_apart(groups: Sequence[Sequence[Run]]) -> list[str]:
    """For each group the values that set it apart from the others of its recipe:
    `lr=0.3 heads=4`. Empty where its recipe has one group.
    """
    named: dict[str, list[dict[str, Any]]] = {}
    recipes = [computing_keys(members[0].recipe, without=("seed",)) for members in groups]
    for members, recipe in zip(groups, recipes, strict=True):
        named.setdefault(members[0].name, []).append(recipe)
    told = []
    for members, recipe in zip(groups, recipes, strict=True):
        keys = varied_keys(named[members[0].name])
        given = [f"{key.rpartition('.')[2]}={_value(recipe.get(key))}" for key in keys]
        more = f" +{len(given) - _APART}" if len(given) > _APART else ""
        told.append(" ".join(given[:_APART]) + more)
    return told


def group_row(store: Store, members: Sequence[Run], apart: str = "") -> Row:
    """A group's mean and spread over those that are done; `apart`: what sets it apart."""
    ended = [run for run in members if run.state == "done"]
    done = [value for run in ended if (value := store.last(run)) is not None]
    seeds = _ranges(sorted({int(run.recipe.get("seed", 0)) for run in members}))
    spread = f" ± {statistics.stdev(done):.2f}" if len(done) > 1 else ""
    # a script need not evaluate: its runs are done all the same
    without = f"{len(ended)} done" if ended else "none done"
    mean = f"{statistics.fmean(done):.2f}{spread} n={len(done)}" if done else without
    cells = (
        "",
        f"{len(members)} run{'s' if len(members) > 1 else ''}",
        f"{mean}  {members[0].name}{f'  {apart}' if apart else ''}",
        f"seeds {seeds}",
    )
    return Row(GROUP + members[0].id, tuple((cell, "head") for cell in cells))


def _ranges(numbers: list[int]) -> str:
    """`0-3,7` of [0, 1, 2, 3, 7]."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
