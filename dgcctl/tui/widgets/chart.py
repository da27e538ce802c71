"""One chart: lines of several runs, a target, a cursor. It is given a Picture and draws it; it knows no run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
from textual import events
from textual.message import Message
from textual_hires_canvas import Canvas

from dgcctl.tui import raster, series
from dgcctl.tui.series import Floats

if TYPE_CHECKING:
    from dgcctl.tui.app import DashApp

GUTTER = 8


@dataclass(frozen=True, eq=False)
class Trace:
    """One line. `label` is a letter; `faint` draws it behind (the raw values under a smoothed line)."""

    label: str
    x: Floats
    y: Floats
    colour: int = 0
    faint: bool = False
    spot: bool = False  # a point of a scatter: a sign and its letter


@dataclass(frozen=True, eq=False)
class Picture:
    """What a chart shows. Two pictures of the same `key` look the same, so the second is not drawn."""

    key: tuple[Any, ...]
    title: str
    traces: list[Trace] = field(default_factory=list)
    window: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    cursor: float | None = None
    target: float | None = None
    x_text: Callable[[float], str] = raster.short
    empty: str = "no values yet"


EMPTY = Picture(("empty",), "")


class Chart(Canvas, can_focus=True):
    """Draws a Picture. A click asks for the cursor, the wheel for a zoom."""

    DEFAULT_CSS = "Chart { height: 1fr; width: 1fr; } Chart:focus { background-tint: $foreground 4%; }"

    @dataclass
    class Pointed(Message):
        chart: Chart
        x: float

    @dataclass
    class Zoomed(Message):
        chart: Chart
        x: float
        inward: bool

    app: DashApp

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(1, 1, id=id)
        self.picture = EMPTY
        self._low, self._high = 0.0, 1.0

    def show(self, picture: Picture) -> None:
        """Draw this picture, unless it looks like the one that is shown."""
        if picture.key != self.picture.key:
            self.picture = picture
            self.draw()

    def on_resize(self, event: events.Resize) -> None:
        if event.size.area:
            self.reset(size=event.size, refresh=False)
            self.draw()

    # --- mouse -------------------------------------------------------------------------------------------------------

    def _x_of(self, column: int) -> float:
        first, last = self.picture.window
        return first + (last - first) * min(1.0, max(0.0, (column - GUTTER + 0.5) / self._width))

    def on_click(self, event: events.Click) -> None:
        self.post_message(self.Pointed(self, self._x_of(event.x)))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.post_message(self.Zoomed(self, self._x_of(event.x), True))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.post_message(self.Zoomed(self, self._x_of(event.x), False))

    # --- drawing -----------------------------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        return max(1, self.size.width - GUTTER - 1)

    @property
    def _height(self) -> int:
        return max(1, self.size.height - 2)

    def draw(self) -> None:
        """Draw the picture anew (a theme may have changed)."""
        if self.size.width < GUTTER + 8 or self.size.height < 4:
            return
        self.reset(refresh=False)
        with self.batch_refresh():
            drawn = [self._scaled(trace) for trace in self.picture.traces]
            bounds = raster.limits([trace.y for trace in drawn] + self._target_values(), False)
            self._title()
            if bounds is None:
                self._text(GUTTER + 1, 1 + self._height // 2, self.picture.empty, "dim")
                return
            self._low, self._high = bounds
            self._axes()
            self._target()
            self._cursor()
            for trace in sorted(drawn, key=lambda trace: (not trace.faint, -trace.colour)):
                self._line(trace)

    def _scaled(self, trace: Trace) -> Trace:
        """The visible part of a trace, in logarithms where the chart is logarithmic."""
        part = series.visible(trace.x, *self.picture.window)
        y = self._scale(trace.y[part])
        return replace(trace, x=trace.x[part], y=y)

    def _scale(self, y: Floats) -> Floats:
        if not self.picture.log:
            return y
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(y > 0, np.log10(y), np.nan))

    def _target_values(self) -> list[Floats]:
        target = self.picture.target
        return [] if target is None else [self._scale(np.array([target]))]

    def _title(self) -> None:
        style = "title"
        at = 0
        for text, role in [(self.picture.title, style), *self._readout()]:
            self._text(at, 0, text, role)
            at += cell_len(text) + 2

    def _readout(self) -> list[tuple[str, str]]:
        """The value of each run under the cursor, or its last one; then the gap to the target."""
        picture = self.picture
        found = []
        for trace in picture.traces:
            if not trace.faint and not trace.spot and len(trace.y):
                value = self._value(trace)
                found.append((f"{trace.label} {raster.short(value)}", f"s{trace.colour}"))
        if picture.target is not None:
            found.append((f"target {raster.short(picture.target)}{self._gap()}", "target"))
        return found

    def _value(self, trace: Trace) -> float:
        if self.picture.cursor is None:
            return float(trace.y[-1])
        value = series.value_at(trace.x, trace.y, self.picture.cursor)
        return float("nan") if value is None else value

    def _gap(self) -> str:
        lines = [trace for trace in self.picture.traces if not trace.faint and len(trace.y)]
        if not lines or self.picture.target is None:
            return ""
        return f" {self._value(lines[0]) - self.picture.target:+.2f}"

    def _axes(self) -> None:
        bottom = 1 + self._height
        wanted = max(2, self._height // 3)
        places = (raster.log_ticks if self.picture.log else raster.ticks)(self._low, self._high, wanted)
        for place in places:
            row = self._row(place)
            value = 10**place if self.picture.log else place
            self._text(0, row, raster.short(value).rjust(GUTTER - 1)[: GUTTER - 1], "dim")
            self._text(GUTTER, row, "┄" * self._width, "grid")
        for row in range(1, bottom):
            self._text(GUTTER - 1, row, "│", "grid")
        self._x_axis(bottom)

    def _x_axis(self, row: int) -> None:
        first, last = self.picture.window
        left, right = self.picture.x_text(first), self.picture.x_text(last)
        self._text(GUTTER, row, left, "dim")
        self._text(self.size.width - 1 - cell_len(right), row, right, "dim")
        if self.picture.cursor is not None:
            text = f"▲ {self.picture.x_text(self.picture.cursor)}"
            column = min(self._column(self.picture.cursor), self.size.width - cell_len(text) - 1)
            self._text(GUTTER, row, " " * self._width, "dim")
            self._text(column, row, text, "cursor")

    def _row(self, value: float) -> int:
        share = (self._high - value) / ((self._high - self._low) or 1.0)
        return 1 + round(share * (self._height - 1))

    def _column(self, x: float) -> int:
        first, last = self.picture.window
        return GUTTER + round((x - first) / ((last - first) or 1.0) * (self._width - 1))

    def _target(self) -> None:
        for values in self._target_values():
            self._text(GUTTER, self._row(float(values[0])), "╌" * self._width, "target")

    def _cursor(self) -> None:
        if self.picture.cursor is not None:
            for row in range(1, 1 + self._height):
                self._text(self._column(self.picture.cursor), row, "│", "cursor")

    def _line(self, trace: Trace) -> None:
        if trace.spot:
            for x, y in zip(trace.x.tolist(), trace.y.tolist(), strict=True):
                self._text(self._column(x), self._row(y), f"◆{trace.label}", f"s{trace.colour}")
            return
        spans = series.spans(trace.x, trace.y, *self.picture.window, 2 * self._width)
        style = self.app.palette.text("faint" if trace.faint else f"s{trace.colour}")
        dash = trace.colour if self.app.palette.plain else 0
        if len(spans.at):
            for column, row, character in raster.characters(
                raster.cells(spans, self._low, self._high, self._width, self._height, dash)
            ):
                self.set_pixel(column + GUTTER, row + 1, character, style)
        self._marks(spans, trace)

    def _marks(self, spans: series.Spans, trace: Trace) -> None:
        """A cross where a value is no number; the letter at the end of each line where there are several."""
        for column in spans.broken.tolist():
            self._text(GUTTER + column // 2, self._height, "✗", "bad")
        if len(spans.at) and not trace.faint and sum(not other.faint for other in self.picture.traces) > 1:
            middle = float(spans.low[-1] + spans.high[-1]) / 2
            column = min(GUTTER + int(spans.at[-1]) // 2 + 1, self.size.width - 1)
            self._text(column, self._row(middle), trace.label, f"s{trace.colour}")

    def _text(self, x: int, y: int, text: str, role: str) -> None:
        style = self.app.palette.text(role)
        for index, character in enumerate(text):
            self.set_pixel(x + index, y, character, style)
