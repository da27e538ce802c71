"""Lines of texts with roles, such as the head of every screen; drawn when their words change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from dgc.talk import shown
from dgcctl.tui.palette import palette_of
from dgcctl.tui.widgets.virtual_table import Cell

LEAST = 4  # cells; less of a text would say nothing


class Lines(Widget):
    """Lines of cells. What has no room at the right is cut and ends with `…`: it never vanishes."""

    DEFAULT_CSS = "Lines { height: auto; }"

    def __init__(self, *, id: str | None = None, height: int | None = None) -> None:
        super().__init__(id=id)
        self.lines: tuple[tuple[Cell, ...], ...] = ()
        if height is not None:
            self.styles.height = height

    def show(self, *lines: Sequence[Cell]) -> None:
        fresh = tuple(tuple(map(_seen, line)) for line in lines)
        if fresh != self.lines:
            grown = len(fresh) != len(self.lines)
            self.lines = fresh
            self.refresh(layout=grown)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        return max(1, len(self.lines))

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        told = fitting(self.lines[y] if y < len(self.lines) else (), self.size.width)
        segments = [Segment(text, base + palette_of(self.app).style(role)) for text, role in told]
        strip = Strip(segments, sum(cell_len(segment.text) for segment in segments))
        return strip.adjust_cell_length(self.size.width, base)


def fitting(cells: Sequence[Cell], room: int) -> Iterator[tuple[str, str]]:
    """The cells (text and role) side by side; where they have no room, `…` stands for the rest.

    Blanks at the end need no room.
    """
    told = [(cell, "") if isinstance(cell, str) else cell for cell in cells]
    if cell_len("".join(text for text, _ in told).rstrip()) <= room:
        yield from told
        return
    if room < 1:
        return
    for index, (text, role) in enumerate(told):
        if cell_len(text) >= room:
            begin = set_cell_size(text, room - 1) if index == 0 or room >= LEAST else ""
            yield f"{begin}…", role
            return
        yield text, role
        room -= cell_len(text)


def _seen(cell: Cell) -> Cell:
    """What a file holds is shown, never obeyed by the terminal."""
    return shown(cell) if isinstance(cell, str) else (shown(cell[0]), cell[1])


class Bar(Lines):
    """The first line of a screen."""

    DEFAULT_CSS = "Bar { dock: top; height: 1; background: $panel; }"


def progress(share: float, width: int) -> str:
    """`━━━━╾───`: a thin line, half a cell at a time."""
    halves = round(max(0.0, min(1.0, share)) * width * 2)
    full, part = divmod(halves, 2)
    text = "━" * full + ("╾" if part else "")
    return text + "─" * (width - len(text))
