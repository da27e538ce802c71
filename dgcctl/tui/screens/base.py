"""What all screens share: a head line, the keys below, and being told when something changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.screen import Screen

from dgcctl.tui.widgets.bar import Bar
from dgcctl.tui.widgets.listing import Cell

if TYPE_CHECKING:
    from dgcctl.tui.app import DashApp

WIDE = 110
Sheet = tuple[Sequence[str], Sequence[Sequence[object]]]  # the head and the rows of a CSV file


class DashScreen(Screen[None]):
    """`look` shows what is known now; it is called on news, on return, and after a key changed the view."""

    name_for_files: ClassVar[str] = "screen"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012  Textual's own declaration
    app: DashApp

    @property
    def wide(self) -> bool:
        """Whether there is room for whole names (the class -wide says the same to the style sheets)."""
        return self.app.size.width >= WIDE

    @property
    def ready(self) -> bool:
        """Whether its widgets are there: a screen on its way in or out is on the stack without them."""
        return bool(self.is_attached and self.query(Bar))

    def on_resize(self) -> None:
        if self.ready:
            self.look()

    def look(self) -> None:
        """Show what is known now."""

    def subject(self) -> str | None:
        """The run that stop, checkpoint and resume are about."""
        return None

    def shown_runs(self) -> Sequence[str]:
        """The runs whose logs this screen needs."""
        return ()

    def sheet(self) -> Sheet:
        """What is on screen, as a table."""
        return (), ()

    def redraw(self) -> None:
        """The theme changed: draw everything again."""
        self.refresh(recompose=False)
        for widget in self.query("*"):
            widget.refresh()

    def on_mount(self) -> None:
        self.look()

    def on_screen_resume(self) -> None:
        self.app.screen_changed()
        self.look()

    def action_back(self) -> None:
        if len(self.app.screen_stack) > 1 and self.app.screen is self:
            self.app.pop_screen()


def head(title: str, *cells: Cell) -> list[Cell]:
    return [(f" {title} ", "title"), " ", *cells]
