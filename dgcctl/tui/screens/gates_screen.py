"""The gate map: layer x head, the channels a head uses most and least, the schedule, promised and
executed MACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal

from dgcctl.core import numbers
from dgcctl.core.runs.listing import Run
from dgcctl.tui import keys
from dgcctl.tui.screens.base import ExportTable, OneRunScreen, head
from dgcctl.tui.state import gate_maps, run_facts
from dgcctl.tui.state.gate_maps import FIGURES, GateMap, Head, Layer
from dgcctl.tui.state.store import ROLES, share_done, state_text
from dgcctl.tui.widgets.bar import Bar, Lines
from dgcctl.tui.widgets.chart import Chart
from dgcctl.tui.widgets.chart_spec import EMPTY, ChartSpec, Trace
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.virtual_table import Cell, ListColumn, Listing, Row


class GatesScreen(OneRunScreen):
    name_for_files = "gates"
    own_keys = keys.GATES + keys.ACTING
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings(own_keys)]
    DEFAULT_CSS = """
    GatesScreen #below { height: 40%; min-height: 9; max-height: 20; }
    GatesScreen #head { width: 42; padding: 0 1; background: $surface; height: 1fr; }
    GatesScreen #schedule { width: 1fr; }
    GatesScreen.-low #below { display: none; }
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self._figure = next(iter(FIGURES))
        self._chosen: int | None = None  # which evaluation; None: the newest
        self._head = 0
        self._read: dict[str, GateMap | str] = {}

    def compose(self) -> ComposeResult:
        yield Bar()
        yield Listing((), id="map")
        with Horizontal(id="below"):
            yield Lines(id="head")
            yield Chart(id="schedule")
        yield KeyLine()

    def on_mount(self) -> None:
        self.listing = self.query_one(Listing)
        self.listing.focus()
        self.host.screen_changed()
        super().on_mount()

    def shown_runs(self) -> Sequence[str]:
        return (self.run_id,)

    # --- what is shown ----------------------------------------------------------------------------

    def show_now(self) -> None:
        run = self.host.store.runs.get(self.run_id)
        if run is None:
            return
        files = self._files()
        found = self._map(run, files)
        self._title(run, files, found)
        self._schedule(run)
        if isinstance(found, str):
            self.listing.empty = found
            self.listing.show((), (ListColumn("layer"),))
            self.query_one("#head", Lines).show()
            return
        names = gate_maps.short_names([layer.name for layer in found.layers])
        rows = [self._row(layer, name) for layer, name in zip(found.layers, names, strict=True)]
        self.listing.show(rows, self._columns(found))
        self._about_head(found)

    def _files(self) -> list[str]:
        events = self.host.store.feed(self.run_id).gates
        return list(dict.fromkeys(str(event["file"]) for event in events if event.get("file")))

    def _place(self, files: list[str]) -> int:
        newest = len(files) - 1
        return newest if self._chosen is None else min(self._chosen, newest)

    def _map(self, run: Run, files: list[str]) -> GateMap | str:
        if not files:
            dense = run.recipe.get("model.form") == "dense"
            return (
                "a dense network has no gates"
                if dense
                else "a script's run has no gate maps"
                if run.dir.config.exists()
                else "no gate map yet: one is written at every evaluation"
            )
        file = files[self._place(files)]
        # A file that could not be read is tried again: it may have been half written.
        if file not in self._read or isinstance(self._read[file], str):
            self._read[file] = gate_maps.read(run.dir, file)
        return self._read[file]

    def _title(self, run: Run, files: list[str], found: GateMap | str) -> None:
        where: list[Cell] = []
        if isinstance(found, GateMap):
            where = [f"evaluation {self._place(files) + 1}/{len(files)}  ", f"step {found.step:,}"]
        self.query_one(Bar).show(
            head(
                f"gates {run.id if self.wide else run_facts.short_id(run.id)}",
                (f"{state_text(run.state)}  ", ROLES.get(run.state, "")),
                (f"{FIGURES[self._figure]}  ", "accent"),
                *where,
            )
        )

    def _columns(self, found: GateMap) -> tuple[ListColumn, ...]:
        count = max((len(layer.heads) for layer in found.layers), default=0)
        width = self._cell_width(count)
        heads = tuple(
            ListColumn(f"{'▸' if i == self._head else ' '}head {i}", width) for i in range(count)
        )
        costs = (
            ListColumn("dense", 8, True, 2),
            ListColumn("promised", 8, True),
            ListColumn("executed", 8, True),
            ListColumn("excess", 6, True, 1),
        )
        return (
            ListColumn("layer", tail=True),
            ListColumn("in", 4, True),
            ListColumn("off", 4, True),
            *heads,
            *costs,
        )

    def _cell_width(self, heads: int) -> int:
        """Wider cells where the screen has room beside names (34) and figures (50)."""
        return max(7, min(24, (self.size.width - 84) // max(1, heads)))

    def _row(self, layer: Layer, short: str) -> Row:
        name = layer.name if self.wide else short
        cells: list[Cell] = [name, str(layer.in_channels), str(layer.n_inactive)]
        width = self._cell_width(len(layer.heads))
        cells += [(gate_maps.shade(one.figure(self._figure), width), "bar") for one in layer.heads]
        over = layer.executed / layer.promised - 1 if layer.promised else 0.0
        cells += [
            (numbers.rough_count(layer.dense), "dim"),
            numbers.rough_count(layer.promised),
            numbers.rough_count(layer.executed),
        ]
        return Row(layer.name, (*cells, (f"{over:+.0%}", "warn" if over > 0.1 else "good")))

    def _about_head(self, found: GateMap) -> None:
        layer = next((layer for layer in found.layers if layer.name == self.listing.current), None)
        if layer is None or not layer.heads:
            return
        self._head = min(self._head, len(layer.heads) - 1)
        one = layer.heads[self._head]
        self.query_one("#head", Lines).show(
            [(layer.name[-40:], "head")],
            [f"head {self._head}: active {one.active_share:.1%}  entropy {one.entropy:.3f}"],
            *_channels(one),
        )

    def _schedule(self, run: Run) -> None:
        if "model.gate_factor" not in run.recipe:  # of a script: nobody here knows a schedule
            self.query_one("#schedule", Chart).show(EMPTY)
            return
        factor = float(run.recipe.get("model.gate_factor") or 1.0)
        x, y = gate_maps.pruning_curve(factor)
        here = share_done(run) * 100
        spec = ChartSpec(
            key=("schedule", factor, round(here, 1), self.host.palette.theme),
            title="channels left out %",
            traces=[Trace("pruned", x, y)],
            window=(0.0, 100.0),
            cursor=here,
            x_text=lambda p: f"you are here: {p:.0f}%" if p == here else f"{p:.0f}%",
        )
        self.query_one("#schedule", Chart).show(spec)

    def redraw(self) -> None:
        super().redraw()
        self.query_one("#schedule", Chart).draw()
        self.look()

    # --- keys -------------------------------------------------------------------------------------

    def on_listing_moved(self) -> None:
        self.look()

    def action_figure(self) -> None:
        names = list(FIGURES)
        self._figure = names[(names.index(self._figure) + 1) % len(names)]
        self.look()

    def action_epoch(self, by: int) -> None:
        files = self._files()
        place = max(0, min(len(files) - 1, self._place(files) + by))
        # The newest stays the newest when another evaluation comes.
        self._chosen = None if place == len(files) - 1 else place
        self.look()

    def action_head(self, by: int) -> None:
        self._head = max(0, self._head + by)
        self.look()

    def export_table(self) -> ExportTable:
        names = (
            "layer",
            "in_channels",
            "n_inactive",
            "head",
            "active_share",
            "entropy",
            "dense",
            "promised",
            "executed",
        )
        run = self.host.store.runs.get(self.run_id)
        found = self._map(run, self._files()) if run else ""
        layers = found.layers if isinstance(found, GateMap) else ()
        return names, [
            [
                one.name,
                one.in_channels,
                one.n_inactive,
                index,
                h.active_share,
                h.entropy,
                one.dense,
                one.promised,
                one.executed,
            ]
            for one in layers
            for index, h in enumerate(one.heads)
        ]


def _channels(one: Head) -> list[list[Cell]]:
    """Most and least used channels side by side, with the share of samples that chose them."""
    lines: list[list[Cell]] = [[("most used           least used", "dim")]]
    for (channel, share), (other, low) in zip(one.most, one.least, strict=False):
        lines.append(
            [
                (f"ch {channel:<5}{share:6.1%}", "good"),
                "      ",
                (f"ch {other:<5}{low:6.1%}", "warn"),
            ]
        )
    return lines
