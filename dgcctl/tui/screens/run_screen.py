"""One run: curves of several metrics with the marked runs laid over, what it does now, and a drawer
of records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.widgets import Input

from dgcctl.core.runs.listing import Run
from dgcctl.tui import keys, run_head
from dgcctl.tui.screens.base import ExportTable, OneRunScreen
from dgcctl.tui.screens.labelled import LabelField, LabelledScreen
from dgcctl.tui.state import chart_choice, curves, drawer_rows, run_facts, view
from dgcctl.tui.state.chart_choice import Page
from dgcctl.tui.state.curves import ChartOptions, Curves
from dgcctl.tui.state.run_facts import Target
from dgcctl.tui.widgets.bar import Bar, Lines
from dgcctl.tui.widgets.chart import GUTTER, Chart
from dgcctl.tui.widgets.chart_spec import ChartSpec
from dgcctl.tui.widgets.drawer import Drawer
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.virtual_table import Listing

CHARTS = 12
METRICS = "metrics"
_SEARCHES = {
    METRICS: "metric name",
    "charts": "charts: words of their names; a|b: one of them, !a: without, a*: the whole name",
}
NARROW = 60  # columns of screen; with fewer, charts stand below each other
LOW = 16  # lines of screen; with fewer, one line tells of the run and the rest is a chart


class RunScreen(OneRunScreen, LabelledScreen):
    name_for_files = "run"
    own_keys = keys.RUN + keys.ACTING
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings(own_keys)]
    DEFAULT_CSS = """
    RunScreen #now { height: 3; padding: 0 1; background: $surface; }
    RunScreen.-wide #charts { height: 2fr; }
    RunScreen #charts { height: 1fr; layout: grid; grid-size: 2; grid-gutter: 0 1; }
    RunScreen #search { display: none; }
    RunScreen #search.on { display: block; }
    """

    def __init__(self, run_id: str, drawer: str = "") -> None:
        super().__init__(run_id)
        self._first_drawer = drawer
        self._window: tuple[float, float] | None = None
        self._cursor: float | None = None
        self._alone = ""
        self._text = ""  # what the names of the charts have to hold
        self._usage = False
        self._page = Page((), 0, 0)
        self._targets: list[Target] = []

    def compose(self) -> ComposeResult:
        yield Bar()
        yield Lines(id="now", height=3)
        with Container(id="charts"):
            for index in range(CHARTS):
                yield Chart(id=f"chart{index}")
        yield Drawer(id="drawer")
        yield Input(placeholder="search", id="search")
        yield LabelField()
        yield KeyLine()

    def on_mount(self) -> None:
        self.curves = Curves(self.host.store)
        self.charts = list(self.query(Chart))
        self.drawer = self.query_one(Drawer)
        self.query_one("#search", Input).cursor_blink = False
        run = self.host.store.runs.get(self.run_id)
        self._targets = run_facts.targets(run_facts.recipe_of(run.dir)) if run else []
        self.host.screen_changed()
        self.drawer.open(self._first_drawer or self.host.store.view.drawer)
        self._focus()
        super().on_mount()

    def _focus(self) -> None:
        (self.drawer.listing if self.drawer.kind else self.charts[0]).focus()

    # --- what is shown ----------------------------------------------------------------------------

    @property
    def run_shown(self) -> Run | None:
        return self.host.store.runs.get(self.run_id)

    def shown_runs(self) -> Sequence[str]:
        return [run.id for run in self.host.store.overlay(self.run_id)]

    def show_now(self) -> None:
        run = self.run_shown
        if run is None:
            self.query_one("#now", Lines).show([(f"{self.run_id}: its folder is gone", "bad")])
            return
        store = self.host.store
        target = self._targets[0] if self._targets else None
        told = run_head.lines(store, run, target, store.overlay(self.run_id), wide=self.wide)
        low = self.size.height < LOW
        now = self.query_one("#now", Lines)
        now.styles.height = 1 if low else 3
        now.show(*(told[2:] if low and run_head.reason_line(run) else told))
        self._draw_charts()
        filtered = f"charts with {self._text!r}  " if self._text else ""
        which = "usage  " if self._usage else filtered
        title = run_head.title(store, run, which + self._page.told, wide=self.wide)
        self.query_one(Bar).show(title)
        if self.drawer.kind:
            self.drawer.show(
                drawer_rows.find(self.drawer.kind, self.drawer.search, store, run, self._targets)
            )

    def _chart_options(self) -> ChartOptions:
        kept = self.host.store.view
        return ChartOptions(
            kept.axis,
            kept.weight,
            kept.log,
            self._window,
            self._cursor,
            self.host.palette.theme,
            kept.clip,
        )

    def _draw_charts(self) -> None:
        metrics = self._metrics()
        overlay = self.host.store.overlay(self.run_id)
        extent = self._extent()
        if not metrics:
            none = ChartSpec(("none", self._text), "", empty=f"no chart has {self._text!r}: / asks")
            self.charts[0].display = True
            self.charts[0].show(none)
        for chart, metric in zip(self.charts, metrics, strict=False):
            target = next((t for t in self._targets if metric == f"eval.{t.metric}"), None)
            chart.show(
                self.curves.chart_spec(metric, overlay, self._chart_options(), extent, target)
            )

    def _extent(self) -> tuple[float, float]:
        names = ("step.loss", "eval.top1_error", *self.host.store.view.metrics)
        return self.curves.extent(
            self.host.store.overlay(self.run_id), names, self.host.store.view.axis
        )

    def _metrics(self) -> list[str]:
        """The metrics that have a chart now, as many as there is room for."""
        run = self.run_shown
        columns, count = self._room()
        names = [self._alone] if self._alone else []
        if not names and run is not None:
            names = chart_choice.names_of(self.host.store, run, usage=self._usage, text=self._text)
        self._page = chart_choice.page(names, self._page.number, count)
        shown = self._page.shown
        self.query_one("#charts").styles.grid_size_columns = min(columns, max(1, len(shown)))
        for index, chart in enumerate(self.charts):
            chart.display = index < len(shown)
        return list(shown)

    def _room(self) -> tuple[int, int]:
        """Columns and number of charts that this screen has room for."""
        width, wanted = self.size.width, self.host.store.view.panels
        if wanted:
            return math.ceil(math.sqrt(wanted)), wanted
        columns = 1 if width < NARROW else 3 if width >= 150 else 2
        height = max(1, self.size.height - 5)
        lines = (
            height * (2 if self.wide else 1) // (3 if self.wide else 2)
            if self.drawer.kind
            else height
        )
        rows = max(1, lines // 16) if lines >= 48 else min(2, lines // 8)
        return columns, min(CHARTS, columns * max(1, rows))

    def redraw(self) -> None:
        super().redraw()
        for chart in self.charts:
            chart.draw()
        self.look()

    # --- keys: axes, smoothing, cursor, zoom ------------------------------------------------------

    def action_log_y(self) -> None:
        self.host.store.view.log = not self.host.store.view.log
        self.look()

    def action_axis(self) -> None:
        self.host.store.view.next_axis()
        self._window = self._cursor = None
        self.look()

    def action_smooth(self, by: int) -> None:
        self.host.store.view.smoother(by)
        self.look()

    def action_cursor(self, by: int) -> None:
        """Move the cursor by columns; it begins at the right end."""
        first, last = self._window or self._extent()
        columns = max(1, self.charts[0].size.width - GUTTER - 1)
        start = last if self._cursor is None else self._cursor
        self._cursor = min(last, max(first, start + by * (last - first) / columns))
        self.look()

    def action_zoom(self, direction: int) -> None:
        first, last = window = self._window or self._extent()
        centre = last if self._cursor is None else self._cursor
        self._zoom(window, min(last, max(first, centre)), direction > 0)

    def _zoom(self, window: tuple[float, float], centre: float, inward: bool) -> None:
        self._window = curves.zoomed(window, self._extent(), centre, inward)
        self.look()

    def on_chart_pointed(self, event: Chart.Pointed) -> None:
        self._cursor = event.x
        self.look()

    def on_chart_zoomed(self, event: Chart.Zoomed) -> None:
        self._zoom(self._window or self._extent(), event.x, event.inward)

    def action_one(self) -> None:
        """The focused chart alone, or all again."""
        shown = self._metrics()
        focused = next((index for index, chart in enumerate(self.charts) if chart.has_focus), 0)
        self._alone = "" if self._alone or not shown else shown[min(focused, len(shown) - 1)]
        self.look()

    def action_page(self, by: int) -> None:
        self._page = replace(self._page, number=max(0, self._page.number + by))
        self.look()

    def action_panels(self) -> None:
        self.host.store.view.next_panels()
        self.look()

    def action_clip(self) -> None:
        self.host.store.view.clip = not self.host.store.view.clip
        self.look()

    def action_usage(self) -> None:
        """Charts of CPU, GPU and memory, or the others again."""
        self._usage, self._alone = not self._usage, ""
        self._page = replace(self._page, number=0)
        self.look()

    def action_alone(self) -> None:
        """The marked runs out of the charts, or back."""
        self.host.store.view.alone = not self.host.store.view.alone
        self.host.screen_changed()
        self.look()

    # --- keys: drawer, search, marks --------------------------------------------------------------

    def action_drawer(self, kind: str) -> None:
        self._close_search()
        self.drawer.open(kind)
        self.host.store.view.drawer = self.drawer.kind
        self._focus()
        self.look()

    def action_follow(self) -> None:
        """The log at its end, where it stays as it grows."""
        if self.drawer.kind != "log":
            self.action_drawer("log")
        self.drawer.listing.action_edge(1)
        self.look()

    @property
    def _searched(self) -> str:
        """What the field is about: a list that is open, else the charts."""
        return self.drawer.kind or "charts"

    def action_search(self) -> None:
        field = self.query_one("#search", Input)
        field.placeholder = _SEARCHES.get(self._searched, f"text in the {self._searched}")
        field.add_class("on")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        if self._searched == "charts":
            self._text, self._alone = event.value.strip(), ""
            self._page = replace(self._page, number=0)
        else:
            self.drawer.search = event.value
        self.host.look_soon()

    def on_input_submitted(self) -> None:
        self.query_one("#search").remove_class("on")
        self._focus()

    def _close_search(self) -> None:
        field = self.query_one("#search", Input)
        # Emptied without the message: it would come later,
        # and end a search that was begun meanwhile.
        with field.prevent(Input.Changed):
            field.value = ""
        field.remove_class("on")
        self.drawer.search = ""

    def focus_rows(self) -> None:
        self._focus()

    def on_listing_moved(self) -> None:
        self.drawer.tell()

    def on_listing_opened(self, event: Listing.Opened) -> None:
        """Enter on a metric shows its chart alone."""
        if self.drawer.kind == METRICS:
            self._alone = event.key
            self.look()

    def action_pin(self) -> None:
        """The chosen metric's chart goes first; without a list of metrics, the run goes to the top
        of the runs.
        """
        kept = self.host.store.view
        if self.drawer.kind == METRICS and self.drawer.listing.current:
            view.toggle(kept.metrics, self.drawer.listing.current)
        else:
            view.toggle(kept.pins, self.run_id)
            self.notify("pinned" if self.run_id in kept.pins else "no longer pinned", timeout=2)
        self.look()

    def action_mark(self) -> None:
        kept = self.host.store.view
        view.toggle(kept.marks, self.run_id)
        self.notify("marked" if self.run_id in kept.marks else "no longer marked", timeout=2)
        self.look()

    def action_diff(self) -> None:
        overlay = [run.id for run in self.host.store.overlay(self.run_id)]
        if len(overlay) < 2:
            self.notify("mark another run in the list with space, then press d", severity="warning")
            return
        self.host.open_compare(overlay)

    def action_gates(self) -> None:
        self.host.open_gates(self.run_id)

    def action_back(self) -> None:
        """Drop, in this order: a field, the search, the cursor, the zoom, the chart alone, the
        filter of charts, the charts of the machine; then leave.
        """
        if self.leave_label():
            pass
        elif self.query_one("#search").has_class("on") or self.drawer.search:
            self._close_search()
            self._focus()
        elif self._cursor is not None:
            self._cursor = None
        elif self._window is not None:
            self._window = None
        elif self._alone:
            self._alone = ""
        elif self._text or self._usage:
            self._text, self._usage = "", False
        else:
            super().action_back()
            return
        self.look()

    def export_table(self) -> ExportTable:
        overlay = self.host.store.overlay(self.run_id)
        run = self.run_shown
        names = self._metrics() if run is not None else []
        rows = curves.table_at(
            self.curves, self.host.store, overlay, names, self.host.store.view.axis
        )
        return ("run", "metric", self.host.store.view.axis, "value"), rows
