"""The last line: the screen's keys from the left, as many as there is room for, and at the right
those that open more.

Textual's Footer makes a widget of every key, some frames later than the screen, and cuts what has
no room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events

from dgcctl.tui.widgets.bar import Lines
from dgcctl.tui.widgets.virtual_table import Cell


@dataclass(frozen=True)
class ShownKey:
    """A key to press, as it is written, and what it does in a word."""

    key: str
    text: str
    label: str

    @property
    def width(self) -> int:
        return cell_len(self.text) + 1 + cell_len(self.label) + 2


class KeyLine(Lines):
    """Told again when what can be done changes. A click presses the key."""

    DEFAULT_CSS = "KeyLine { dock: bottom; height: 1; background: $panel; padding: 0 1; }"

    parts: Sequence[ShownKey | int] = ()  # a number is a gap of so many cells

    def tell(self, own: Iterable[ShownKey], always: Iterable[ShownKey]) -> None:
        last = tuple(always)
        # The keys at the right first: they open what has no room at the left.
        room = self.app.size.width - 2 - sum(key.width for key in last)
        first = tuple(_fitting(own, room))
        gap = max(0, room - sum(key.width for key in first) + 2)
        self.parts = [*first, gap, *last]
        self.show([cell for part in self.parts for cell in _cells(part)])

    def on_click(self, event: events.Click) -> None:
        at = event.x - 1
        for part in self.parts:
            width = part if isinstance(part, int) else part.width
            if 0 <= at < width and isinstance(part, ShownKey):
                self.app.simulate_key(part.key)
            at -= width


def _fitting(keys: Iterable[ShownKey], room: int) -> Iterator[ShownKey]:
    """Whole keys alone, in their order, until one finds no room."""
    for key in keys:
        room -= key.width
        if room < 0:
            return
        yield key


def _cells(part: ShownKey | int) -> list[Cell]:
    return (
        [" " * part] if isinstance(part, int) else [(part.text, "accent"), (f" {part.label}  ", "")]
    )
