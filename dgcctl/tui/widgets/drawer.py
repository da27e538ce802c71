"""The lower part of the Run screen: log, checkpoints, facts or metrics, one list at a time, with a
search.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical

from dgcctl.tui.widgets.bar import Lines
from dgcctl.tui.widgets.virtual_table import Cell, ListColumn, Listing, Row

COLUMNS: dict[str, tuple[ListColumn, ...]] = {
    "log": (ListColumn("log.txt"),),
    "checkpoints": (
        ListColumn("step", 8, True), ListColumn("epoch", 6, True), ListColumn("", 9),
        ListColumn("size", 9, True),
        ListColumn("saved", 20), ListColumn("ms", 7, True, 1), ListColumn("path"),
    ),
    "facts": (ListColumn("what", 22), ListColumn("is")),
    "metrics": (ListColumn("", 2), ListColumn("metric"), ListColumn("points", 8, True),
    ListColumn("last", 10, True)),
}  # fmt: skip
EMPTY = {
    "log": "log.txt is empty", "checkpoints": "nothing saved yet", "facts": "no records",
    "metrics": "no metrics yet",
}  # fmt: skip


@dataclass(frozen=True)
class SearchResult:
    """The rows to show, of how many the search kept, of how many there are."""

    rows: list[Row]
    kept: int
    total: int


class Drawer(Vertical):
    """Shows one of the lists above. The search keeps the rows that contain the text (case does not
    matter).
    """

    DEFAULT_CSS = """
    Drawer { height: 1fr; display: none; }
    Drawer #drawer-title { background: $surface; }
    Drawer.open { display: block; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.kind = ""
        self.search = ""
        self._found = SearchResult([], 0, 0)

    def compose(self) -> ComposeResult:
        yield Lines(id="drawer-title", height=1)
        yield Listing(COLUMNS["log"], id="drawer-rows")

    @property
    def listing(self) -> Listing:
        return self.query_one(Listing)

    def open(self, kind: str) -> None:
        """Show this list; an empty kind, or the one that is shown, closes the drawer."""
        self.kind = "" if kind == self.kind else kind
        self.search = ""
        self.set_class(bool(self.kind), "open")

    def show(self, found: SearchResult) -> None:
        """Show the rows that were found. A log that stood at its end stays at its end."""
        if not self.kind:
            return
        listing = self.listing
        changed = listing.columns != COLUMNS[self.kind]
        # Before the rows change: afterwards the cursor stands where the end was.
        at_end = listing.cursor >= len(listing.rows) - 1
        listing.empty = f"nothing contains {self.search!r}" if self.search else EMPTY[self.kind]
        if listing.highlight != self.search:
            listing.highlight = self.search
            listing.refresh()
        listing.show(found.rows, COLUMNS[self.kind])
        if self.kind == "log" and (at_end or changed):
            listing.action_edge(1)
        elif changed:
            listing.action_edge(0)
        self._found = found
        self.tell()

    def tell(self) -> None:
        """How many rows there are, and whether the log follows its end."""
        found = self._found
        text = (
            f"{found.kept} of {found.total} contain {self.search!r}"
            if self.search
            else f"{found.total}"
        )
        shown = len(found.rows)
        cut = f", the first {shown} shown: / narrows" if shown < found.kept else ""
        self.query_one("#drawer-title", Lines).show(
            [(f" {self.kind} ", "head"), (f"{text}{cut}  ", "dim"), *self._following()]
        )

    def _following(self) -> list[Cell]:
        """Whether the log moves on with what is written."""
        listing = self.listing
        if self.kind != "log" or not listing.rows:
            return []
        if listing.cursor >= len(listing.rows) - 1:
            return [("▼ follows the end", "accent")]
        return [(f"line {listing.cursor + 1}, stands still: F follows", "warn")]
