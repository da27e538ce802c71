"""All runs: state, progress, errors; filter, mark, pin, group by seed. Where there is room, the
chosen one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input

from dgcctl.core import numbers
from dgcctl.core.runs.listing import Run
from dgcctl.tui import keys, run_head
from dgcctl.tui.screens.base import ExportTable, head
from dgcctl.tui.screens.labelled import LabelField, LabelledScreen
from dgcctl.tui.state import curves, run_rows, view
from dgcctl.tui.state.alerts import DISK_LOW
from dgcctl.tui.state.curves import ChartOptions, Curves
from dgcctl.tui.state.run_rows import GROUP
from dgcctl.tui.state.store import ROLES, ShownRuns, reason, state_text
from dgcctl.tui.state.view import View
from dgcctl.tui.widgets.bar import Bar, Lines
from dgcctl.tui.widgets.chart import Chart
from dgcctl.tui.widgets.chart_spec import EMPTY
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.virtual_table import Listing, Row

PREVIEW_AT = 30  # lines of screen from which there is room for it
SETTLE = 0.15  # seconds the cursor rests before a log is read


class RunsScreen(LabelledScreen):
    name_for_files = "runs"
    own_keys = keys.RUNS + keys.ACTING
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings(own_keys)]
    DEFAULT_CSS = """
    RunsScreen #filter { display: none; }
    RunsScreen #filter.on { display: block; }
    RunsScreen #about { height: 2; padding: 0 1; background: $surface; }
    RunsScreen #previews { height: 40%; display: none; }
    """

    def compose(self) -> ComposeResult:
        yield Bar()
        yield Input(
            self.host.store.view.filter,
            placeholder="state=done lr>0.05 tag:paper name~demo",
            id="filter",
        )
        yield Listing(
            run_rows.COLUMNS,
            id="runs",
            empty="no runs yet: press n to start one, or `dgcctl train demo`",
        )
        yield Lines(id="about", height=2)
        with Horizontal(id="previews"):
            yield Chart(id="preview-error")
            yield Chart(id="preview-loss")
        yield LabelField()
        yield KeyLine()

    def on_mount(self) -> None:
        self.curves = Curves(self.host.store)
        self.listing = self.query_one(Listing)
        self.previews = list(self.query(Chart))
        self.query_one("#filter", Input).cursor_blink = False
        self.query_one("#filter").set_class(bool(self.host.store.view.filter), "on")
        self.listing.focus()
        super().on_mount()

    def on_resize(self) -> None:
        self.query_one("#previews").display = self._previews
        self.look()

    @property
    def loaded(self) -> bool:
        return self.host.store.listed

    # --- what is shown ----------------------------------------------------------------------------

    def show_now(self) -> None:
        shown = self.host.store.shown()
        grouped = self.host.store.view.grouped
        rows = self._grouped(shown.runs) if grouped else [self._row(run) for run in shown.runs]
        self.listing.empty = (
            "looking for runs" if not self.host.store.listed else self._nothing(shown)
        )
        columns = run_rows.columns(self.host.store, self.size.width, wide=self.wide)
        self.listing.show(rows, columns)
        self._share(len(rows))
        self._head(shown)
        self._about()

    def _share(self, rows: int) -> None:
        """A short list leaves its lines to the charts."""
        height = self.size.height
        wanted = max(height * 2 // 5, min(height * 13 // 20, height - rows - 6))
        charts = self.query_one("#previews")
        if charts.styles.height is None or charts.styles.height.value != wanted:
            charts.styles.height = wanted

    def _nothing(self, shown: ShownRuns) -> str:
        if self.host.store.folder_gone:
            return f"folder {self.host.options.runs_dir} is gone"
        if shown.hidden:
            return f"all {shown.hidden} are hidden: H shows them"
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
        if shown.hidden:
            limits.append((f"{shown.hidden} hidden  ", "warn"))
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
        store, now, width = self.host.store, self.host.clock.now(), self.size.width
        return run_rows.row(store, run, now, width, wide=self.wide, indent=indent)

    def _grouped(self, found: Sequence[Run]) -> list[Row]:
        """Runs that differ in nothing but the seed, under their mean and spread."""
        rows = []
        groups = run_rows.grouped(found)
        for members, apart in zip(groups, run_rows.set_apart(groups), strict=True):
            rows.append(run_rows.group_row(self.host.store, members, apart))
            # one blank where two would cost the end of a name
            rows += [self._row(run, "  " if self.wide else " ") for run in members]
        return rows

    def _about(self) -> None:
        """Two lines on the run under the cursor, and its curve."""
        run = self._current()
        if run is None:
            self.query_one("#about", Lines).show()
            for chart in self.previews:
                chart.show(EMPTY)
            return
        values = run.recipe
        told = [(f"{name} {values[key]}  ", "dim") for key, name in _TOLD.items() if key in values]
        why = "bad" if run.problem or run.state == "failed" else ""
        sign = self.host.store.sign(run.id)
        self.query_one("#about", Lines).show(
            [(f"{sign.letter} {run.id}", f"s{sign.colour}"), "  ", *told],
            [*run_head.labels(run), (reason(run) or str(values.get("title", "")), why)],
        )
        if self.query_one("#previews").display:
            self._preview(run)

    def _preview(self, run: Run) -> None:
        """The error beside the loss (of a script's run the first two that it has)."""
        store, kept = self.host.store, self.host.store.view
        runs = store.overlay(run.id)
        names = curves.previewed(store, run)
        options = ChartOptions(
            kept.axis, kept.weight, kept.log, theme=self.host.palette.theme, clip=kept.clip
        )
        extent = self.curves.extent(runs, names, options.axis)
        for chart, name in zip(self.previews, names, strict=True):
            target = curves.target_of(run) if name == curves.ERROR else None
            chart.show(self.curves.chart_spec(name, runs, options, extent, target))

    def redraw(self) -> None:
        super().redraw()
        for chart in self.previews:
            chart.draw()
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
        """Escape closes the field of tags and notes, else it drops the filter."""
        if self.leave_label():
            return
        self.query_one("#filter", Input).value = ""
        self._leave_filter()

    def focus_rows(self) -> None:
        self.listing.focus()

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

    def action_hide(self) -> None:
        """Take the run out of the list and of all charts, or bring it back; go on to the next."""
        run_id = self.subject()
        if run_id is None:
            return
        kept, rows = self.host.store.view, self.listing.rows
        at = self.listing.cursor
        following = rows[at + 1 if at + 1 < len(rows) else at - 1].key
        view.toggle(kept.hidden, run_id)
        self.listing.go(following)
        self.host.screen_changed()
        self.look()

    def action_show_hidden(self) -> None:
        self.host.store.view.show_hidden = not self.host.store.view.show_hidden
        self.look()

    def action_sort(self) -> None:
        self.host.store.view.next_sort()
        self.look()

    def action_reverse(self) -> None:
        self.host.store.view.reverse = not self.host.store.view.reverse
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
