"""A table that draws only the lines in sight: 1,000 runs and 12,000 names cost what a screenful
costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from dgc.talk import shown
from dgcctl.tui.palette import palette_of

Cell = str | tuple[str, str]  # a text, or a text and its role in the palette


@dataclass(frozen=True)
class ListColumn:
    """`width` 0 shares what is left; columns of the highest `drop` go first where the screen is
    narrow (0: never).
    """

    title: str
    width: int = 0
    right: bool = False
    drop: int = 0
    tail: bool = False  # what is too long loses its beginning, not its end (names of layers, paths)
    least: int = 16  # what a column of width 0 needs before others are dropped for it


@dataclass(frozen=True)
class Row:
    key: str
    cells: tuple[Cell, ...]


class Listing(ScrollView, can_focus=True):
    """Rows with a cursor. Posts Opened on enter or a second click, Moved when the cursor moves."""

    DEFAULT_CSS = "Listing { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(1)", "Last", show=False),
        Binding("enter", "open", "Open", id="open"),
    ]

    @dataclass
    class Opened(Message):
        listing: Listing
        key: str

    @dataclass
    class Moved(Message):
        listing: Listing
        key: str

    def __init__(
        self, columns: Sequence[ListColumn], *, id: str | None = None, empty: str = "nothing here"
    ) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.rows: tuple[Row, ...] = ()
        self.cursor = 0
        self.highlight = ""  # a text that stands out in the rows (case does not matter)
        self._empty = empty

    # --- content ----------------------------------------------------------------------------------

    @property
    def empty(self) -> str:
        """What is said where there are no rows."""
        return self._empty

    @empty.setter
    def empty(self, text: str) -> None:
        if text != self._empty:
            self._empty = text
            self.refresh()

    def show(self, rows: Sequence[Row], columns: Sequence[ListColumn] | None = None) -> None:
        """Show these rows; the cursor stays on its row. Draws nothing where nothing changed."""
        fresh = tuple(rows)
        if columns is not None and tuple(columns) != self.columns:
            self.columns = tuple(columns)
        elif fresh == self.rows:
            return
        # By its key: rows move when a run is added or the sort changes, and the cursor is on a
        # run, not on a line.
        kept = self.current
        self.rows = fresh
        self._place(
            next(
                (i for i, row in enumerate(fresh) if row.key == kept),
                min(self.cursor, len(fresh) - 1),
            )
        )
        # With the head, which scrolls along in Textual's count though it stays in sight.
        self.virtual_size = Size(self.size.width, len(fresh) + 1)
        self.refresh()

    def _place(self, position: int) -> None:
        self.cursor = max(0, position)

    @property
    def current(self) -> str | None:
        """The key under the cursor."""
        return self.rows[self.cursor].key if self.cursor < len(self.rows) else None

    def go(self, key: str) -> None:
        """Put the cursor on a row."""
        self._go(next((i for i, row in enumerate(self.rows) if row.key == key), self.cursor))

    # --- moving -----------------------------------------------------------------------------------

    def action_move(self, by: int) -> None:
        self._go(self.cursor + by)

    def action_page(self, by: int) -> None:
        self._go(self.cursor + by * max(1, self.size.height - 2))

    def action_edge(self, last: int) -> None:
        self._go(len(self.rows) - 1 if last else 0)

    def action_open(self) -> None:
        if self.current is not None:
            self.post_message(self.Opened(self, self.current))

    def _go(self, position: int) -> None:
        position = max(0, min(len(self.rows) - 1, position))
        if position == self.cursor or not self.rows:
            return
        self.cursor = position
        self.scroll_to_region(Region(0, position, 1, 2), animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved(self, self.rows[position].key))

    def on_click(self, event: events.Click) -> None:
        position = event.y - 1 + self.scroll_offset.y
        if event.y < 1 or position >= len(self.rows):
            return
        # The first click goes to a row, a second one opens it.
        if position == self.cursor:
            self.action_open()
        self._go(position)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self.rows) + 1)
        self.refresh()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    # --- drawing ----------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        if y == 0:
            return self._line([(column.title, "head") for column in self.columns], None)
        position = y - 1 + self.scroll_offset.y
        if position < len(self.rows):
            return self._line(self.rows[position].cells, self._row_style(position), self.highlight)
        if not self.rows and y == 1:
            text = _fit(f" {shown(self.empty)}", self.size.width, ListColumn(""))
            return self._strip([Segment(text, palette_of(self.app).style("dim"))])
        return self._strip([])

    def _row_style(self, position: int) -> Style | None:
        if position != self.cursor:
            return None
        return palette_of(self.app).style("select" if self.has_focus else "blurred")

    def _line(self, cells: Sequence[Cell], over: Style | None, highlight: str = "") -> Strip:
        palette = palette_of(self.app)
        segments = []
        for (index, width), cell in zip(self._widths(), self._kept(cells), strict=False):
            text, role = (cell, "") if isinstance(cell, str) else cell
            style = palette.style(role)
            fitted = _fit(shown(text), width, self.columns[index])
            style = style + over if over else style
            matched = style + palette.style("match")
            parts = _parts(fitted, highlight)
            segments += [Segment(part, matched if hit else style) for part, hit in parts]
            segments.append(Segment(" ", over or Style.null()))
        return self._strip(segments, over)

    def _kept(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cells[index] for index, _ in self._widths() if index < len(cells)]

    def _strip(self, segments: list[Segment], over: Style | None = None) -> Strip:
        base = self.rich_style
        styled = [Segment(text, base + style if style else base) for text, style, _ in segments]
        return (
            Strip(styled)
            .extend_cell_length(self.size.width, base + over if over else base)
            .crop(0, self.size.width)
        )

    def _widths(self) -> list[tuple[int, int]]:
        """Which columns fit, and how wide each is."""
        room = self.size.width
        kept = list(range(len(self.columns)))
        while (
            len(kept) > 1 and self._needed(kept) > room and any(self.columns[i].drop for i in kept)
        ):
            # One at a time: often a single one is enough, and widths are shared anew.
            kept.remove(max(kept, key=lambda i: self.columns[i].drop))
        spare = room - sum(self.columns[i].width for i in kept) - len(kept)
        flexible = [i for i in kept if not self.columns[i].width]
        share = max(8, spare // len(flexible)) if flexible else 0
        return [(i, self.columns[i].width or share) for i in kept]

    def _needed(self, kept: Sequence[int]) -> int:
        return sum((self.columns[i].width or self.columns[i].least) + 1 for i in kept)


def _parts(text: str, wanted: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, and whether each is what is looked for."""
    begin, folded = 0, text.lower()
    # lower case may be longer than the text (`İ`): then nothing stands out
    while wanted and len(folded) == len(text):
        at = folded.find(wanted.lower(), begin)
        if at < 0:
            break
        if at > begin:
            yield text[begin:at], False
        begin = at + len(wanted)
        yield text[at:begin], True
    if begin < len(text):
        yield text[begin:], False


def _tail(text: str, width: int) -> str:
    """The end of a text, so many cells wide (a letter may take two)."""
    while cell_len(text) > max(0, width):
        text = text[1:]
    return set_cell_size(text, max(0, width))


def _fit(text: str, width: int, column: ListColumn) -> str:
    if width < 1:
        return ""
    if cell_len(text) > width and column.tail:
        return "…" + _tail(text, width - 1)
    if cell_len(text) > width:
        return set_cell_size(text[: max(0, width - 1)], max(0, width - 1)) + "…"
    return " " * (width - cell_len(text)) + text if column.right else set_cell_size(text, width)
