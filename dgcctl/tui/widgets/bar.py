"""One line of texts with roles: the head of every screen. Drawn again only when its words change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from dgcctl.tui.widgets.listing import Cell

if TYPE_CHECKING:
    from dgcctl.tui.app import DashApp


class Lines(Widget):
    """Lines of cells, cut at the right edge."""

    DEFAULT_CSS = "Lines { height: auto; }"
    app: DashApp

    def __init__(self, *, id: str | None = None, height: int | None = None) -> None:
        super().__init__(id=id)
        self.lines: tuple[tuple[Cell, ...], ...] = ()
        if height is not None:
            self.styles.height = height

    def show(self, *lines: Sequence[Cell]) -> None:
        fresh = tuple(tuple(line) for line in lines)
        if fresh != self.lines:
            grown = len(fresh) != len(self.lines)
            self.lines = fresh
            self.refresh(layout=grown)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return max(1, len(self.lines))

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        segments = []
        for cell in self.lines[y] if y < len(self.lines) else ():
            text, role = (cell, "") if isinstance(cell, str) else cell
            segments.append(Segment(text, base + self.app.palette.style(role)))
        strip = Strip(segments, sum(cell_len(segment.text) for segment in segments))
        return strip.adjust_cell_length(self.size.width, base)


class Bar(Lines):
    """The first line of a screen."""

    DEFAULT_CSS = "Bar { dock: top; height: 1; background: $panel; }"


def progress(share: float, width: int) -> str:
    """`████▌···`: eighths of a cell, so that a slow run is seen to move."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    text = "█" * full + (" ▏▎▍▌▋▊▉"[part] if part else "")
    return text + "·" * (width - len(text))
