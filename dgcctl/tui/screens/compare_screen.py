"""Marked runs against each other: figures with mean and spread, what differs, accuracy against cost
and speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from dgcctl.core.compare.seeds import figures
from dgcctl.tui import keys, raster
from dgcctl.tui.screens.base import DashScreen, ExportTable, head
from dgcctl.tui.state import comparison, curves
from dgcctl.tui.state.comparison import ComparedRuns
from dgcctl.tui.state.run_rows import WHOLE_ID
from dgcctl.tui.widgets.bar import Bar, Lines
from dgcctl.tui.widgets.chart import Chart
from dgcctl.tui.widgets.chart_spec import ChartSpec, Trace
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.virtual_table import Listing

SECTIONS = ("figures", "differences", "scatter")
Spot = tuple[str, float, float, int]  # letter, x, y, colour


class CompareScreen(DashScreen):
    name_for_files = "compare"
    own_keys = keys.COMPARE
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings(own_keys)]
    DEFAULT_CSS = """
    CompareScreen #scatter { height: 1fr; display: none; }
    CompareScreen #legend { padding: 0 1; height: auto; max-height: 6; background: $surface; }
    CompareScreen.-low #legend { max-height: 2; }
    """

    def __init__(self, run_ids: Sequence[str]) -> None:
        super().__init__()
        self.run_ids = tuple(run_ids)
        self._section = SECTIONS[0]
        self._found: ComparedRuns | None = None

    def compose(self) -> ComposeResult:
        yield Bar()
        yield Lines(id="legend")
        yield Listing((), id="table", empty="reading the records")
        with Horizontal(id="scatter"):
            yield Chart(id="cost")
            yield Chart(id="speed")
        yield KeyLine()

    def on_mount(self) -> None:
        self.query_one(Listing).focus()
        self.host.screen_changed()
        self._read()
        super().on_mount()

    @work(thread=True, exclusive=True)
    def _read(self) -> None:
        found = comparison.read(self.host.store.dirs(self.run_ids))
        self.call_later(self._take, found)  # nobody waits: the screen may be gone

    def _take(self, found: ComparedRuns) -> None:
        self._found = found
        self.look()

    @property
    def loaded(self) -> bool:
        return self._found is not None

    def shown_runs(self) -> Sequence[str]:
        return self.run_ids

    # --- what is shown ----------------------------------------------------------------------------

    def show_now(self) -> None:
        found = self._found
        if found is None:
            return
        tabs = [(f"{name}  ", "accent" if name == self._section else "dim") for name in SECTIONS]
        marked = [
            (f"[{text.strip()}]  " if role == "accent" else text, role) for text, role in tabs
        ]
        self.query_one(Bar).show(
            head(f"compare {len(found.runs)} runs", *marked, ("x changes", "dim"))
        )
        signs = [(self.host.store.sign(run.id), run.id) for run in found.runs]
        self.query_one("#legend", Lines).show(
            *[[(f"{sign.letter} {run_id}", f"s{sign.colour}")] for sign, run_id in signs]
        )
        self.query_one("#scatter").display = self._section == "scatter"
        self.query_one(Listing).display = self._section != "scatter"
        self._fill(found)

    def _fill(self, found: ComparedRuns) -> None:
        listing = self.query_one(Listing)
        if self._section == "figures":
            listing.show(
                comparison.metric_rows(
                    found, self._speed(), self.host.store.sign, wide=self.size.width >= WHOLE_ID
                ),
                comparison.metric_columns(),
            )
        elif self._section == "differences":
            listing.empty = (
                "nothing differs: recipe, code, data, environment and results are the same"
            )
            letters = [self.host.store.sign(run.id).letter for run in found.runs]
            listing.show(comparison.difference_rows(found), comparison.difference_columns(letters))
        else:
            self._scatter(found)

    def _speed(self) -> dict[str, float | None]:
        """Median images/s of each run's own records."""
        known = [run_id for run_id in self.run_ids if run_id in self.host.store.runs]
        return {
            run_id: curves.median(self.host.store.feed(run_id).points("perf.images_per_s").value)
            for run_id in known
        }

    def _scatter(self, found: ComparedRuns) -> None:
        speed = self._speed()
        cost, fast = [], []
        for run in found.runs:
            values, sign = figures(run), self.host.store.sign(run.id)
            error = values.get("top1_error")
            if error is not None and "macs_executed" in values:
                cost.append((sign.letter, values["macs_executed"] / 1e6, error, sign.colour))
            if error is not None and speed.get(run.id) is not None:
                fast.append((sign.letter, float(speed[run.id] or 0), error, sign.colour))
        self._plot("cost", cost, "top-1 error % against executed MACs (M)", "M")
        self._plot("speed", fast, "top-1 error % against measured images/s", "/s")

    def _plot(self, chart: str, spots: list[Spot], title: str, unit: str) -> None:
        low, high = _around([spot[1] for spot in spots])
        self.query_one(f"#{chart}", Chart).show(
            ChartSpec(
                key=(chart, *spots, self.host.palette.theme),
                title=title,
                traces=[
                    Trace(letter, np.array([x]), np.array([y]), colour, spot=True)
                    for letter, x, y, colour in spots
                ],
                window=(low, high),
                x_text=lambda value: f"{value:.4g} {unit}",
                x_ticks=_x_ticks,
                empty="needs runs that have been evaluated",
            )
        )

    def redraw(self) -> None:
        super().redraw()
        for chart in self.query(Chart):
            chart.draw()
        self.look()

    def action_section(self) -> None:
        self._section = SECTIONS[(SECTIONS.index(self._section) + 1) % len(SECTIONS)]
        self.look()

    def export_table(self) -> ExportTable:
        found = self._found or ComparedRuns()
        if self._section == "differences":
            ids = [run.id for run in found.runs]
            return ("section", "key", *ids), [
                (section, key, *values) for section, key, values in found.differences
            ]
        names = (
            "top1_error",
            "top5_error",
            "loss",
            "macs_dense",
            "macs_promised",
            "macs_executed",
            "parameters",
        )
        speed = self._speed()
        rows = [
            [run.id, run.seed, *(figures(run).get(name) for name in names), speed.get(run.id)]
            for run in found.runs
        ]
        return ("run", "seed", *names, "images_per_s"), rows


def _x_ticks(first: float, last: float, count: int) -> list[tuple[float, str]]:
    return [(place, f"{place:g}") for place in raster.ticks(first, last, count)]


def _around(values: list[float]) -> tuple[float, float]:
    """A window with room on both sides."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    pad = (high - low) * 0.15 or abs(high) * 0.2 or 1.0
    return max(0.0, low - pad), high + pad
