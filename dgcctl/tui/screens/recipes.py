"""Recipes: what each holds and why; start a run of one, with changes."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from dgc import recipe as recipes
from dgc.errors import DgcError
from dgc.recipe import Recipe
from dgcctl.tui import keys
from dgcctl.tui.screens.base import DashScreen, Sheet, head
from dgcctl.tui.widgets.bar import Bar
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.listing import Column, Listing, Row


class Ask(ModalScreen[str | None]):
    """Changes to a recipe before it starts; enter starts it, escape does not."""

    DEFAULT_CSS = """
    Ask { align: center middle; }
    Ask > Vertical { width: 76; max-width: 95%; height: auto; padding: 1 2; }
    Ask > Vertical { border: round $accent; background: $surface; }
    Ask #title { text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back")]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(f"Start a run of {self._name}?", id="title", markup=False)
            yield Static(
                "Enter starts it; changes may be given first, separated by blanks. Escape goes back.", markup=False
            )
            yield Input(placeholder="optim.lr=0.05 train.epochs=3 seed=1")

    def on_mount(self) -> None:
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
    RecipesScreen #note { height: 1; padding: 0 1; background: $surface; }
    """

    def compose(self) -> ComposeResult:
        yield Bar()
        with Horizontal():
            yield Listing((Column("recipe"),), id="names", empty="no recipes")
            yield Listing((Column("key", 22), Column("value", 18), Column("why")), id="why", empty="")
        yield Static(id="note", markup=False)
        yield KeyLine()

    def on_mount(self) -> None:
        self._recipes: dict[str, Recipe | str] = {name: _load(name) for name in recipes.shipped_recipes()}
        self.query_one("#names", Listing).focus()
        super().on_mount()

    def show_now(self) -> None:
        names = self.query_one("#names", Listing)
        names.show([Row(name, (name,)) for name in self._recipes])
        self.query_one(Bar).show(head("recipes", (f"{len(self._recipes)}", "dim")))
        found = self._recipes.get(names.current or "")
        self.query_one("#why", Listing).show(why_rows(found))
        self.query_one("#note", Static).update(found.title if isinstance(found, Recipe) else found or "")

    def on_listing_moved(self, event: Listing.Moved) -> None:
        if event.listing.id == "names":
            self.look()

    def on_listing_opened(self, event: Listing.Opened) -> None:
        if event.listing.id == "names" and self.app.check_action("start", ()):
            self.action_start()

    def action_start(self) -> None:
        name = self.query_one("#names", Listing).current
        if name is not None and not self.app.options.readonly:
            self.app.push_screen(Ask(name), lambda changes: self._start(name, changes))

    def _start(self, name: str, changes: str | None) -> None:
        if changes is None:
            return
        try:
            self.app.start_recipe(name, changes.split())
        except (DgcError, OSError) as error:
            self.notify(str(error), title="not started", severity="error", timeout=10, markup=False)

    def sheet(self) -> Sheet:
        found = self._recipes.get(self.query_one("#names", Listing).current or "")
        return ("key", "value", "why"), [[_cell(cell) for cell in row.cells] for row in why_rows(found)]


def _load(name: str) -> Recipe | str:
    try:
        return recipes.load_recipe(recipes.find_recipe(name))
    except DgcError as error:
        return str(error).splitlines()[0]


def why_rows(found: Recipe | str | None) -> list[Row]:
    """Each value of a recipe with its origin; what it is expected to reach first."""
    if not isinstance(found, Recipe):
        return []
    rows = [
        Row(
            f"expect {wanted.metric}",
            (("expect", "head"), (f"{wanted.metric} {wanted.value:g} ± {wanted.tolerance:g}", "target"), wanted.source),
        )
        for wanted in found.expect
    ]
    for key, value in recipes.flatten(found):
        if ("." in key and not key.startswith(("origin.", "expect."))) or key == "seed":
            rows.append(
                Row(key, (key, _text(value), (found.origin.get(key, "default"), "" if key in found.origin else "dim")))
            )
    return rows


def _text(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else "-" if value is None else str(value)


def _cell(cell: object) -> str:
    return str(cell[0]) if isinstance(cell, tuple) else str(cell)
