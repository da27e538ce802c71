"""Every key, what it does, and the signs used on the screens."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType

from dgcctl.tui import keys
from dgcctl.tui.keys import BACK
from dgcctl.tui.screens.base import DashScreen, ExportTable, head
from dgcctl.tui.state.store import GLYPHS, ROLES
from dgcctl.tui.widgets.bar import Bar
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.virtual_table import ListColumn, Listing, Row

_FIXED = (
    ("Everywhere", "ctrl+p", "command palette: all that has a key"),
    ("Everywhere", "tab", "focus the next part of the screen"),
    ("Lists", "up down j k", "move; page up and down, home, end too"),
    ("Lists", "enter", "open the row; so does a second click"),
    ("Charts", "click", "put the cursor there, in all charts"),
    ("Charts", "wheel", "zoom around the mouse"),
)


class HelpScreen(DashScreen):
    name_for_files = "help"
    own_keys = (BACK,)
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings(own_keys)]

    def compose(self) -> ComposeResult:
        yield Bar()
        yield Listing(
            (
                ListColumn("where", 10, drop=1),
                ListColumn("key", 13),
                ListColumn("id", 12, drop=2),
                ListColumn("what it does", least=24),
            ),
            id="keys",
        )
        yield KeyLine()

    def on_mount(self) -> None:
        self.query_one(Listing).focus()
        super().on_mount()

    def show_now(self) -> None:
        where = self.host.options.keys_file
        note = (
            f"keys can be changed in {where}"
            if where
            else "keys can be changed: dgcctl dash --keys FILE"
        )
        self.query_one(Bar).show(head("help", (note, "dim")))
        self.query_one(Listing).show(self._rows())

    def _rows(self) -> list[Row]:
        rows = [
            Row(f"fixed {where} {key}", ((where, "dim"), (key, "accent"), "", text))
            for where, key, text in _FIXED
        ]
        for where, table in keys.TABLES.items():
            for key in table:
                if not (self.host.options.readonly and key.id in keys.ACTS):
                    shown = keys.shown_key(self.host.own_keys.get(key.id, key.key))
                    rows.append(
                        Row(
                            f"{where} {key.id}",
                            ((where, "dim"), (shown, "accent"), (key.id, "dim"), key.help),
                        )
                    )
        signs = [(f"{glyph} {state}", ROLES[state]) for state, glyph in GLYPHS.items()]
        return rows + [
            Row(f"sign {text}", (("State", "dim"), (text, role), "", _STATES[str(text[2:])]))
            for text, role in signs
        ]

    def export_table(self) -> ExportTable:
        rows = [
            [cell if isinstance(cell, str) else cell[0] for cell in row.cells]
            for row in self._rows()
        ]
        return ("where", "key", "id", "what it does"), rows


_STATES = {
    "queued": "made, not yet begun",
    "running": "its process lives",
    "done": "took all its steps",
    "failed": "ended by an error, which is shown",
    "stopped": "saved, ended on request: r resumes it",
    "died": "its process is gone: r resumes it",
    "unreadable": "its records cannot be read",
}
