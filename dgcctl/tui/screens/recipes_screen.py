"""Recipes: what each holds and why; start a run of one, with changes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Key, Paste
from textual.widgets import Input, Static

from dgc.errors import DgcError
from dgc.recipe import load as recipes
from dgc.recipe.load import Recipe
from dgc.talk import shown
from dgcctl.tui import keys
from dgcctl.tui.screens.base import DashScreen, ExportTable, head
from dgcctl.tui.screens.question import Question
from dgcctl.tui.widgets.bar import Bar, Lines
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.virtual_table import Cell, ListColumn, Listing, Row

COLUMNS = (ListColumn("key", 22), ListColumn("value", 18), ListColumn("why"))
WIDE_COLUMNS = (ListColumn("key", 24), ListColumn("value", 30), ListColumn("why"))


_EDITS = ("backspace", "delete", "left", "right", "home", "end")


class Ask(Question[str | None]):
    """Changes to a recipe before it starts; enter starts it, escape does not."""

    DEFAULT_CSS = """
    Ask { align: center middle; }
    Ask > Vertical { width: 76; max-width: 95%; height: auto; padding: 1 2; }
    Ask > Vertical { border: round $accent; background: $surface; }
    Ask #title { text-style: bold; }
    Ask #refused { color: $error; height: auto; max-height: 8; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back")]

    def __init__(self, name: str, changes: str = "", refused: str = "") -> None:
        super().__init__()
        self._name, self._changes, self._refused = shown(name), changes, shown(refused)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(f"Start a run of {self._name}?", id="title", markup=False)
            yield Static(
                "Enter starts it; changes may be given first, separated by blanks. Escape goes"
                " back.",
                markup=False,
            )
            yield Static(self._refused, id="refused", markup=False)
            yield self.waiting()
            yield Input(self._changes, placeholder="for instance: optim.lr=0.05 seed=1")

    def answers(self, event: Key | Paste) -> bool:
        """Text may be typed at once, for it starts nothing; other keys were for another screen."""
        return isinstance(event, Key) and not (event.is_printable or event.key in _EDITS)

    def on_mount(self) -> None:
        super().on_mount()
        field = self.query_one(Input)
        field.cursor_blink = False
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)

    def action_leave(self) -> None:
        self.dismiss(None)


class RecipesScreen(DashScreen):
    name_for_files = "recipes"
    own_keys = keys.RECIPES
    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings(own_keys)]
    DEFAULT_CSS = """
    RecipesScreen #names { width: 34; }
    RecipesScreen #why { width: 1fr; }
    RecipesScreen.-narrow #names { width: 24; }
    RecipesScreen #note { height: 2; padding: 0 1; background: $surface; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._recipes: dict[str, Recipe | str] | None = None

    def compose(self) -> ComposeResult:
        yield Bar()
        with Horizontal():
            yield Listing((ListColumn("recipe"),), id="names", empty="reading the recipes")
            yield Listing((), id="why", empty="")
        yield Lines(id="note", height=2)
        yield KeyLine()

    def on_mount(self) -> None:
        self.names, self.why = self.query_one("#names", Listing), self.query_one("#why", Listing)
        self.names.focus()
        self._read()
        super().on_mount()

    @work(thread=True, exclusive=True)
    def _read(self) -> None:
        self.call_later(
            self._take, {name: _load(path) for name, path in self.host.options.recipes().items()}
        )

    def _take(self, found: dict[str, Recipe | str]) -> None:
        self._recipes = found
        self.names.empty = "no recipes"
        self.look()

    @property
    def loaded(self) -> bool:
        return self._recipes is not None

    # --- what is shown ----------------------------------------------------------------------------

    def show_now(self) -> None:
        found = self._recipes or {}
        self.names.show([Row(name, (name,)) for name in found])
        self.query_one(Bar).show(head("recipes", (f"{len(found)}", "dim")))
        self.why.show(why_rows(self._chosen()), WIDE_COLUMNS if self.wide else COLUMNS)
        self._note()

    def _chosen(self) -> Recipe | str:
        """The recipe under the cursor, or why it cannot be read."""
        return (self._recipes or {}).get(self.names.current or "", "")

    def _note(self) -> None:
        """What the recipe is, and the value under the other cursor with its whole reason."""
        found = self._chosen()
        row = next((row for row in self.why.rows if row.key == self.why.current), None)
        key, value, why = map(_cell, row.cells) if row else ("", "", "")
        told: list[Cell] = [(f"{key} {value}: ", "accent"), (why, "")] if row else []
        self.query_one("#note", Lines).show(
            [found.title if isinstance(found, Recipe) else (found, "bad")], told
        )

    def on_listing_moved(self, event: Listing.Moved) -> None:
        self.look()

    def on_listing_opened(self, event: Listing.Opened) -> None:
        if event.listing.id == "names" and self.app.check_action("start", ()):
            self.action_start()

    def action_start(self) -> None:
        name = self.names.current
        if name is not None and not self.host.options.readonly:
            self._ask(Ask(name), name)

    def _ask(self, question: Ask, name: str) -> None:
        self.app.push_screen(question, lambda changes: self._start(name, changes))

    def _start(self, name: str, changes: str | None) -> None:
        if changes is None:
            return
        try:
            self.host.start_recipe(self.host.options.recipes()[name], shlex.split(changes))
        except (DgcError, OSError, ValueError) as error:
            # asked again, with what was typed: keys meant for the text must not become acts
            self._ask(Ask(name, changes, f"not started: {error}"), name)

    def export_table(self) -> ExportTable:
        return ("key", "value", "why"), [
            [_cell(cell) for cell in row.cells] for row in why_rows(self._chosen())
        ]


def _load(path: Path) -> Recipe | str:
    try:
        return recipes.load_recipe(path)
    except (DgcError, OSError) as error:
        return str(error).splitlines()[0]


def why_rows(found: Recipe | str) -> list[Row]:
    """Each value of a recipe with its origin; what it is expected to reach first."""
    if not isinstance(found, Recipe):
        return []
    rows = [
        Row(
            f"expect {wanted.metric}",
            (
                ("expect", "head"),
                (f"{wanted.metric} {wanted.value:g} ± {wanted.tolerance:g}", "target"),
                wanted.source,
            ),
        )
        for wanted in found.expect
    ]
    for key, value in recipes.flatten(found):
        if ("." in key and not key.startswith(("origin.", "expect."))) or key == "seed":
            rows.append(
                Row(
                    key,
                    (
                        key,
                        _text(value),
                        (found.origin.get(key, "default"), "" if key in found.origin else "dim"),
                    ),
                )
            )
    return rows


def _text(value: object) -> str:
    """Stages as people write them: 2-2-2."""
    if isinstance(value, tuple):
        return ("-" if all(isinstance(part, int) for part in value) else " ").join(map(str, value))
    return "-" if value is None else str(value)


def _cell(cell: object) -> str:
    return str(cell[0]) if isinstance(cell, tuple) else str(cell)
