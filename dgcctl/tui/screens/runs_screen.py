"""All runs: state, progress, errors; filter, mark, pin, group by seed. Where there is room, the
chosen one.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Input

from dgcctl.core import numbers
from dgcctl.core.runs.listing import Run
from dgcctl.core.runs.record import computing_keys
from dgcctl.tui import keys
from dgcctl.tui.screens.base import DashScreen, ExportTable, head
from dgcctl.tui.state import run_facts, view
from dgcctl.tui.state.alerts import DISK_LOW
from dgcctl.tui.state.curves import ChartOptions, Curves
from dgcctl.tui.state.store import ROLES, ShownRuns, bar_role, reason, share_done, state_text
from dgcctl.tui.state.view import View
from dgcctl.tui.widgets.bar import Bar, Lines, progress
from dgcctl.tui.widgets.chart import EMPTY, Chart
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.virtual_table import ListColumn, Listing, Row

COLUMNS = (
    ListColumn("", 2), ListColumn("state", 12), ListColumn("run"), ListColumn("progress", 13),
    ListColumn("epoch", 7, True, 3), ListColumn("best", 6, True), ListColumn("last", 6, True, 1),
    ListColumn("age", 4, True, 2),
)  # fmt: skip
WIDE_BAR = 40  # cells of progress where there is room for whole names
WIDE_COLUMNS = tuple(
    replace(column, width=WIDE_BAR + 5) if column.title == "progress" else column
    for column in COLUMNS
)
GROUP = "group:"
PREVIEW_AT = 30  # lines of screen from which there is room for it
SETTLE = 0.15  # seconds the cursor rests before a log is read


class RunsScreen(DashScreen):
    name_for_files = "runs"
    own_keys = keys.RUNS + keys.ACTING
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings(own_keys)]
    DEFAULT_CSS = """
    RunsScreen #filter { display: none; }
    RunsScreen #filter.on { display: block; }
    RunsScreen #about { height: 2; padding: 0 1; background: $surface; }
    RunsScreen #preview { height: 40%; display: none; }
    """

    def compose(self) -> ComposeResult:
        yield Bar()
        yield Input(
            self.host.store.view.filter,
            placeholder="state=done lr>0.05 tag:paper name~demo",
            id="filter",
        )
        yield Listing(
            COLUMNS, id="runs", empty="no runs yet: press n to start one, or `dgcctl train demo`"
        )
        yield Lines(id="about", height=2)
        yield Chart(id="preview")
        yield KeyLine()

    def on_mount(self) -> None:
        self.curves = Curves(self.host.store)
        self.listing = self.query_one(Listing)
        self.query_one(Input).cursor_blink = False
        self.query_one("#filter").set_class(bool(self.host.store.view.filter), "on")
        self.listing.focus()
        super().on_mount()

    def on_resize(self) -> None:
        self.query_one("#preview").display = self._previews
        self.look()

    @property
    def loaded(self) -> bool:
        return self.host.store.listed

    # --- what is shown ----------------------------------------------------------------------------

    def show_now(self) -> None:
        shown = self.host.store.shown()
        rows = (
            self._grouped(shown.runs)
            if self.host.store.view.grouped
            else [self._row(run) for run in shown.runs]
        )
        self.listing.empty = (
            "looking for runs" if not self.host.store.listed else self._nothing(shown)
        )
        self.listing.show(rows, WIDE_COLUMNS if self.wide else COLUMNS)
        self._head(shown)
        self._about()

    def _nothing(self, shown: ShownRuns) -> str:
        if self.host.store.folder_gone:
            return f"folder {self.host.options.runs_dir} is gone"
        if self.host.store.runs:
            return "no run passes the filter: / changes it"
        return "no runs yet: press n to start one, or run `dgcctl train demo`"

    def _head(self, shown: ShownRuns) -> None:
        store, states = self.host.store, [run.state for run in self.host.store.runs.values()]
        counts = [
            (f"{state_text(state)[:1]} {states.count(state)} {state}  ", ROLES.get(state, ""))
            for state in dict.fromkeys(states)
        ]
        limits = [(f"filter: {store.view.filter}  ", "accent")] if store.view.filter else []
        problem = [(shown.problem, "bad")] if shown.problem else []
        if store.folder_gone:
            problem = [(f"folder {self.host.options.runs_dir} is gone", "bad")]
        elif store.listed and not store.runs:
            problem = [(f"no runs yet in {self.host.options.runs_dir}  ", "dim")]
        told = problem or [*limits, *self._restored(), *counts]
        if store.free is not None:
            disk = (
                f"disk {numbers.rough_size(store.free)} free  ",
                "bad" if store.free < DISK_LOW else "dim",
            )
            told.insert(0 if store.free < DISK_LOW else len(told), disk)
        self.query_one(Bar).show(head("runs", f"{len(shown.runs)}/{len(states)}  ", *told))

    def _restored(self) -> list[tuple[str, str]]:
        """What an earlier dashboard left that changes what is seen here, for as long as it stands
        so.
        """
        store, left = self.host.store, self.host.left
        told = []
        if left.marks and left.marks == store.view.marks and store.marked():
            told.append(f"{len(store.marked())} marked")
        if left.sort != View().sort and left.sort == store.view.sort:
            told.append(f"sorted by {left.sort}")
        return [(f"{', '.join(told)} (as last time)  ", "accent")] if told else []

    def _row(self, run: Run, indent: str = "") -> Row:
        store = self.host.store
        signs = ("●" if run.id in store.view.marks else " ") + (
            "▴" if run.id in store.view.pins else " "
        )
        share = share_done(run)
        return Row(
            run.id,
            (
                (signs, "accent"),
                (state_text(run.state), ROLES.get(run.state, "")),
                indent + (run.id if self.wide else run_facts.short_id(run.id)),
                (f"{progress(share, WIDE_BAR if self.wide else 8)} {share:4.0%}", bar_role(run)),
                f"{run.status.epoch}/{run.status.epochs}",
                numbers.decimals(store.best(run), 2),
                numbers.decimals(store.last(run), 2),
                (numbers.age(self.host.clock.now() - run.status.started), "dim"),
            ),
        )

    def _grouped(self, found: Sequence[Run]) -> list[Row]:
        """Runs that differ in nothing but the seed, under their mean and spread."""
        groups: dict[str, list[Run]] = {}
        for run in found:
            keys_of = computing_keys(run.recipe, without=("seed",))
            groups.setdefault(run.name + repr(sorted(keys_of.items(), key=str)), []).append(run)
        rows = []
        for members in groups.values():
            rows += [self._group_row(members), *(self._row(run, "  ") for run in members)]
        return rows

    def _group_row(self, members: list[Run]) -> Row:
        done = [
            value
            for run in members
            if run.state == "done" and (value := self.host.store.last(run)) is not None
        ]
        seeds = _ranges(sorted({int(run.recipe.get("seed", 0)) for run in members}))
        spread = f" ± {statistics.stdev(done):.2f}" if len(done) > 1 else ""
        mean = f"{statistics.fmean(done):.2f}{spread} n={len(done)}" if done else "none done"
        cells = (
            "",
            f"{len(members)} run{'s' if len(members) > 1 else ''}",
            f"{mean}  {members[0].name}",
            f"seeds {seeds}",
        )
        return Row(GROUP + members[0].id, tuple((cell, "head") for cell in cells))

    def _about(self) -> None:
        """Two lines on the run under the cursor, and its curve."""
        run = self._current()
        if run is None:
            self.query_one("#about", Lines).show()
            self.query_one("#preview", Chart).show(EMPTY)
            return
        values = run.recipe
        told = [(f"{name} {values[key]}  ", "dim") for key, name in _TOLD.items() if key in values]
        self.query_one("#about", Lines).show(
            [(run.id, "head"), "  ", *told],
            [
                (
                    reason(run) or str(values.get("title", "")),
                    "bad" if run.problem or run.state == "failed" else "",
                )
            ],
        )
        if self.query_one("#preview").display:
            self._preview(run)

    def _preview(self, run: Run) -> None:
        runs = self.host.store.overlay(run.id)
        options = ChartOptions(
            self.host.store.view.axis, 0.0, self.host.store.view.log, theme=self.host.palette.theme
        )
        extent = self.curves.extent(runs, ("step.loss",), options.axis)
        self.query_one("#preview", Chart).show(
            self.curves.chart_spec("step.loss", runs, options, extent)
        )

    def redraw(self) -> None:
        super().redraw()
        self.query_one("#preview", Chart).draw()
        self.look()

    # --- which run --------------------------------------------------------------------------------

    def subject(self) -> str | None:
        current = self.listing.current
        return current.removeprefix(GROUP) if current else None

    def _current(self) -> Run | None:
        return self.host.store.runs.get(self.subject() or "")

    def shown_runs(self) -> Sequence[str]:
        if not self.is_mounted or not self._previews:
            return ()
        return [run.id for run in self.host.store.overlay(self.subject() or "")]

    @property
    def _previews(self) -> bool:
        return self.size.height >= PREVIEW_AT

    def on_listing_moved(self) -> None:
        self._about()
        self.tell_keys()
        self._settling = self.set_timer(SETTLE, self.host.screen_changed)

    def action_open(self) -> None:
        self.listing.action_open()

    def on_listing_opened(self, event: Listing.Opened) -> None:
        self.host.open_run(event.key.removeprefix(GROUP))

    # --- keys -------------------------------------------------------------------------------------

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.add_class("on")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.host.store.view.filter = event.value
        self.host.look_soon()

    def on_input_submitted(self) -> None:
        self._leave_filter()

    def action_back(self) -> None:
        """Escape drops the filter."""
        self.query_one("#filter", Input).value = ""
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter").set_class(bool(self.host.store.view.filter), "on")
        self.listing.focus()

    def action_mark(self) -> None:
        self._toggle(self.host.store.view.marks)
        self.listing.action_move(1)

    def action_pin(self) -> None:
        self._toggle(self.host.store.view.pins)

    def _toggle(self, values: list[str]) -> None:
        run_id = self.subject()
        if run_id:
            view.toggle(values, run_id)
            self.host.screen_changed()
            self.look()

    def action_group(self) -> None:
        self.host.store.view.grouped = not self.host.store.view.grouped
        self.look()

    def action_sort(self) -> None:
        self.host.store.view.next_sort()
        self.notify(f"sorted by {self.host.store.view.sort}", timeout=2)
        self.look()

    def action_diff(self) -> None:
        marked = [run.id for run in self.host.store.marked()]
        chosen = (
            marked
            if len(marked) > 1
            else [*marked, *([self.subject()] if self.subject() not in marked else [])]
        )
        if len(chosen) < 2:
            self.notify("mark two or more runs with space, then press d", severity="warning")
            return
        self.host.open_compare([run_id for run_id in chosen if run_id])

    def action_gates(self) -> None:
        if self.subject():
            self.host.open_gates(str(self.subject()))

    def action_log(self) -> None:
        if self.subject():
            self.host.open_run(str(self.subject()), "log")

    def export_table(self) -> ExportTable:
        names = (
            "id",
            "recipe",
            "state",
            "epoch",
            "epochs",
            "step",
            "steps",
            "best_top1_error",
            "top1_error",
            "started",
            "reason",
        )
        rows = []
        for run in self.host.store.shown().runs:
            row = {**run.row(), "best_top1_error": self.host.store.best(run)}
            rows.append([row[name] for name in names])
        return names, rows


_TOLD = {
    "model.form": "form",
    "data.name": "on",
    "seed": "seed",
    "optim.lr": "lr",
    "train.batch_size": "batch",
}


def _ranges(numbers: list[int]) -> str:
    """`0-3,7` of [0, 1, 2, 3, 7]."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
