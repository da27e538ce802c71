"""One chart: lines of several runs, a target, a cursor. It is given a ChartSpec and draws it; it
knows no run.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual_hires_canvas import Canvas

from dgc.talk import shown
from dgcctl.tui import raster
from dgcctl.tui.palette import palette_of
from dgcctl.tui.raster import Floats, Spans
from dgcctl.tui.widgets.chart_spec import EMPTY, ChartSpec, Trace

GUTTER = 8
FEW = 4  # a curve with less than a value every so many columns has a dot on each


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…" if room > 0 else ""


def _one_cell_each(text: str) -> str:
    """A canvas has one letter a cell: wider ones would move all that stands to their right."""
    return "".join(c if cell_len(c) == 1 else "?" for c in text)


class Chart(Canvas, can_focus=True):
    """Draws a ChartSpec. A click asks for the cursor, the wheel for a zoom."""

    DEFAULT_CSS = (
        "Chart { height: 1fr; width: 1fr; } Chart:focus { background-tint: $foreground 4%; }"
    )

    @dataclass
    class Pointed(Message):
        chart: Chart
        x: float

    @dataclass
    class Zoomed(Message):
        chart: Chart
        x: float
        inward: bool

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(1, 1, id=id)
        self.spec = EMPTY
        self._low, self._high = 0.0, 1.0
        self._kept: dict[int, tuple[Floats, Floats, object, Spans]] = {}
        self._strips: list[Strip] = []

    def show(self, spec: ChartSpec) -> None:
        """Draw this chart, unless it looks like the one that is shown."""
        if spec.key != self.spec.key:
            self.spec = spec
            self.draw()

    def on_resize(self, event: events.Resize) -> None:
        self.draw()

    # --- mouse ------------------------------------------------------------------------------------

    def _x_of(self, column: int) -> float:
        first, last = self.spec.window
        return first + (last - first) * min(1.0, max(0.0, (column - GUTTER + 0.5) / self._width))

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Pointed(self, self._x_of(event.x)))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.post_message(self.Zoomed(self, self._x_of(event.x), True))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.post_message(self.Zoomed(self, self._x_of(event.x), False))

    # --- drawing ----------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        return max(1, self.size.width - GUTTER - 1)

    @property
    def _height(self) -> int:
        return max(1, self.size.height - 2)

    def draw(self) -> None:
        """Draw the chart anew (a theme may have changed)."""
        self._strips = []
        # the canvas grows here, not on the message of a resize, which may come after the spec
        self.reset(size=self.size, refresh=False)
        with self.batch_refresh():
            # refreshed in any case: what was drawn while there was more room must not stay
            if self.size.width < GUTTER + 8 or self.size.height < 4:
                self._title()
                return
            drawn = [
                (trace, self._reduced(index, trace)) for index, trace in enumerate(self.spec.traces)
            ]
            bounds = self._bounds(drawn)
            self._title()
            if bounds is None:
                self._text(GUTTER + 1, 1 + self._height // 2, self.spec.empty, "dim")
                return
            self._low, self._high = bounds
            self._axes()
            self._target()
            self._cursor()
            # Faint ones below, the run in front last: it is on top where lines cross.
            behind = [pair for pair in drawn if pair[0].faint]
            for trace, spans in (*behind, *[pair for pair in drawn[::-1] if not pair[0].faint]):
                self._line(trace, spans)
            self._letters(drawn)

    def _bounds(self, drawn: list[tuple[Trace, Spans]]) -> tuple[float, float] | None:
        """The lowest and the highest value of the chart."""
        if self.spec.clip:
            lines = [(t, s) for t, s in drawn if not t.faint] or drawn
            found = raster.robust_limits([[s.low, s.high] for _, s in lines])
            if found is not None:
                return raster.limits([np.array(found), *self._target_values()])
        edges = [edge for _, spans in drawn for edge in (spans.low, spans.high)]
        return raster.limits(edges + self._target_values())

    def _reduced(self, index: int, trace: Trace) -> Spans:
        """The visible part of a trace as spans; kept, for most keys leave it as it is."""
        how = (self.spec.window, self._width, self.spec.log)
        kept = self._kept.get(index)
        # By identity: a curve that grew is another array, and
        # comparing 600,000 numbers would cost what is saved.
        if kept is None or kept[0] is not trace.x or kept[1] is not trace.y or kept[2] != how:
            part = raster.visible(trace.x, *self.spec.window)
            y = trace.y[part]
            if self.spec.log:
                # Not drawn: a logarithm of 0 would be at the lower edge of every chart.
                y = np.where(y > 0, y, np.nan)
            kept = (
                trace.x,
                trace.y,
                how,
                self._logged(raster.spans(trace.x[part], y, *self.spec.window, 2 * self._width)),
            )
            self._kept[index] = kept
        return kept[3]

    def _logged(self, spans: Spans) -> Spans:
        return replace(spans, low=self._scale(spans.low), high=self._scale(spans.high))

    def _scale(self, y: Floats) -> Floats:
        """Logarithms of values above 0 where the chart is logarithmic."""
        return np.asarray(np.log10(y)) if self.spec.log else y

    def _target_values(self) -> list[Floats]:
        target = self.spec.target
        return (
            []
            if target is None or (self.spec.log and target <= 0)
            else [self._scale(np.array([target]))]
        )

    def _title(self) -> None:
        """The name and what is read off; a number that has no room gives way to `…`, not to half of
        it.
        """
        at = 0
        for text, role in [(self.spec.title, "title"), *self._readout()]:
            if at and at + cell_len(text) >= self.size.width:
                self._text(min(at, self.size.width - 1), 0, "…", "dim")
                return
            self._text(at, 0, text, role)
            at += cell_len(text) + 2

    def _readout(self) -> list[tuple[str, str]]:
        """The value of each run under the cursor, or its last one, and the target (the gap stands
        above).
        """
        spec = self.spec
        found = [("clipped", "warn")] if spec.clip and spec.traces else []
        for trace in spec.traces:
            if not trace.faint and not trace.spot and len(trace.y):
                value = self._value(trace)
                found.append((f"{trace.label} {raster.short(value)}", f"s{trace.colour}"))
        if spec.target is not None:
            found.append((f"target {raster.short(spec.target)}", "target"))
        return found

    def _value(self, trace: Trace) -> float:
        # what was recorded, also where the line is smoothed: a number is read as a fact
        values = trace.y if trace.recorded is None else trace.recorded
        if self.spec.cursor is None:
            return float(values[-1])
        value = raster.value_at(trace.x, values, self.spec.cursor)
        return float("nan") if value is None else value

    def _axes(self) -> None:
        bottom = 1 + self._height
        wanted = max(2, self._height // 3)
        log = self.spec.log
        places = (raster.log_ticks if log else raster.ticks)(self._low, self._high, wanted)
        for row in range(1, bottom):
            self._text(GUTTER - 1, row, "│", "grid")
        for place in raster.between(places, self._low, self._high, log=log):
            self._text(GUTTER - 1, self._row(place), "┤", "grid")
        texts = raster.labels([10**place if log else place for place in places])
        for place, text in zip(places, texts, strict=True):
            row = self._row(place)
            self._text(0, row, text.rjust(GUTTER - 1)[: GUTTER - 1], "dim")
            self._text(GUTTER - 1, row, "┼" + "┄" * self._width, "grid")
        self._x_axis(bottom)

    def _x_axis(self, row: int) -> None:
        first, last = self.spec.window
        left, right = self.spec.x_text(first), self.spec.x_text(last)
        begin = self.size.width - 1 - cell_len(right)
        if self.spec.cursor is not None:
            self._pointer(row, self.spec.x_text(self.spec.cursor))
            return
        self._text(GUTTER, row, left, "dim")
        if begin >= GUTTER:
            self._text(begin, row, right, "dim")
        self._x_ticks(row, GUTTER + cell_len(left) + 1, begin - 2)

    def _x_ticks(self, row: int, first: int, last: int) -> None:
        """Round places between the two ends, as many as have room between columns."""
        if self.spec.x_ticks is None:
            return
        wanted = max(2, self._width // 14)
        for place, text in self.spec.x_ticks(*self.spec.window, wanted):
            begin = self._column(place) - cell_len(text) // 2
            if begin > first and begin + cell_len(text) <= last:
                self._text(begin, row, text, "dim")
                first = begin + cell_len(text) + 1

    def _pointer(self, row: int, text: str) -> None:
        """`▲` under the cursor, its text on the side that has room (cut where neither has)."""
        assert self.spec.cursor is not None
        column = self._column(self.spec.cursor)
        right, left = self.size.width - column - 3, column - GUTTER - 1
        if cell_len(text) <= right or right >= left:
            self._text(column, row, f"▲ {_cut(text, right)}", "cursor")
        else:
            text = _cut(text, left)
            self._text(column - 1 - cell_len(text), row, f"{text} ▲", "cursor")

    def _row(self, value: float) -> int:
        """The line of the canvas in which a curve's dot of this value lies."""
        return 1 + raster.dot(value, self._high, self._low, 4 * self._height) // 4

    def _column(self, x: float) -> int:
        """The column of the canvas in which a curve's dot of this place lies."""
        return GUTTER + raster.dot(x, *self.spec.window, 2 * self._width) // 2

    def _target(self) -> None:
        for values in self._target_values():
            self._text(GUTTER, self._row(float(values[0])), "╌" * self._width, "target")

    def _cursor(self) -> None:
        if self.spec.cursor is not None:
            for row in range(1, 1 + self._height):
                self._text(self._column(self.spec.cursor), row, "│", "cursor")

    def _line(self, trace: Trace, spans: Spans) -> None:
        if trace.spot:
            for x, y in zip(trace.x.tolist(), self._scale(trace.y).tolist(), strict=True):
                self._text(self._column(x), self._row(y), f"◆{trace.label}", f"s{trace.colour}")
            return
        style = palette_of(self.app).text(f"{'f' if trace.faint else 's'}{trace.colour}")
        # Without colour, lines of several runs are told apart by their dashes.
        dash = trace.colour if palette_of(self.app).plain else 0
        if len(spans.at):
            bits = raster.cells(spans, self._low, self._high, self._width, self._height, dash)
            for column, row, character in raster.characters(bits):
                self._buffer[row + 1][column + GUTTER] = character
                self._styles[row + 1][column + GUTTER] = style
        if not trace.faint:
            self._points(trace)
        self._outside(trace, spans)
        for column in spans.broken.tolist():
            self._text(GUTTER + column // 2, self._height, "✗", "bad")

    def _points(self, trace: Trace) -> None:
        """A dot on each value where they are few, so that one sees how often it was measured."""
        first, last = self.spec.window
        inside = (trace.x >= first) & (trace.x <= last) & np.isfinite(trace.y)
        if not 0 < np.count_nonzero(inside) <= max(1, self._width // FEW):
            return
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self._scale(trace.y[inside])
        for x, y in zip(trace.x[inside].tolist(), values.tolist(), strict=True):
            if self._low <= y <= self._high:
                self._text(self._column(x), self._row(y), "•", f"s{trace.colour}")

    def _outside(self, trace: Trace, spans: Spans) -> None:
        """Where a curve lies beyond an edge of a clipped chart."""
        if not self.spec.clip:
            return
        for beyond, row, mark in (
            (spans.high > self._high, 1, "▴"),
            (spans.low < self._low, self._height, "▾"),
        ):
            for column in {int(at) // 2 for at in spans.at[beyond]}:
                self._text(
                    GUTTER + column, row, mark, f"{'f' if trace.faint else 's'}{trace.colour}"
                )

    def _letters(self, drawn: list[tuple[Trace, Spans]]) -> None:
        """The letter at the end of each line where there are several, none on another's, the
        highest above.
        """
        lines = [(t, s) for t, s in drawn if not t.faint and not t.spot and len(s.at)]
        ends = [(float(s.low[-1] + s.high[-1]) / 2, t, int(s.at[-1]) // 2) for t, s in lines]
        taken: set[tuple[int, int]] = set()
        for value, trace, end in sorted(ends, key=lambda e: -e[0]) if len(ends) > 1 else []:
            column = min(GUTTER + end + 1, self.size.width - len(trace.label))
            cells = range(column, column + len(trace.label))
            row = self._free_row(self._row(value), cells, taken)
            taken |= {(row, cell) for cell in cells}
            self._text(column, row, trace.label, f"s{trace.colour}")

    def _free_row(self, wanted: int, cells: range, taken: set[tuple[int, int]]) -> int:
        """The nearest row in which no letter stands yet, of two the lower."""
        rows = sorted(range(1, 1 + self._height), key=lambda row: (abs(row - wanted), -row))
        return next((r for r in rows if not any((r, c) in taken for c in cells)), wanted)

    def _text(self, x: int, y: int, text: str, role: str) -> None:
        """Write into the canvas, cut at its edges."""
        width, height = self._canvas_size
        text = _one_cell_each(shown(text))[: max(0, width - x)]
        if 0 <= y < height and x >= 0 and text:
            self._buffer[y][x : x + len(text)] = text
            self._styles[y][x : x + len(text)] = [palette_of(self.app).text(role)] * len(text)

    def render_line(self, y: int) -> Strip:
        """A line of the canvas, kept until the next drawing (Textual asks again when something lies
        over it).
        """
        if not self._strips:
            base = self.rich_style
            self._strips = [self._strip(line, base) for line in range(self._canvas_size.height)]
        return (
            self._strips[y]
            if y < len(self._strips)
            else Strip.blank(self.size.width, self.rich_style)
        )

    def _strip(self, y: int, base: Style) -> Strip:
        segments = []
        buffer, at = self._buffer[y], 0
        for text, group in itertools.groupby(self._styles[y]):
            end = at + sum(1 for _ in group)
            segments.append(
                Segment("".join(buffer[at:end]), base + palette_of(self.app).parsed(text))
            )
            at = end
        return Strip(segments, self._canvas_size.width)

    def notify_style_update(self) -> None:
        """Focus and theme change the background."""
        self._strips = []
        super().notify_style_update()
