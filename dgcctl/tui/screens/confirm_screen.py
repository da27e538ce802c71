"""A question before an act. `y` or enter on Yes agrees; anything else does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Static

from dgc.talk import shown
from dgcctl.tui.screens.question import Question


class Confirm(Question[bool]):
    """Answers True where the user agrees."""

    DEFAULT_CSS = """
    Confirm { align: center middle; }
    Confirm > Vertical { width: 64; max-width: 95%; height: auto; padding: 1 2; }
    Confirm > Vertical { border: round $accent; background: $surface; }
    Confirm #title { text-style: bold; }
    Confirm Horizontal { height: auto; align-horizontal: right; margin-top: 1; }
    Confirm Button { margin-left: 2; min-width: 12; }
    Confirm.-low > Vertical { padding: 0 1; }
    Confirm.-low Horizontal { margin-top: 0; }
    Confirm.-low Button { height: 1; border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
        Binding("left,right", "other", "Other", show=False),
    ]

    def __init__(self, title: str, text: str, pointless: Callable[[], str] = lambda: "") -> None:
        """`pointless` says why the answer would do nothing any more; empty as long as it would."""
        super().__init__()
        self._pointless = pointless
        self._title, self._text = shown(title), shown(text, newlines=True)

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self._title, id="title", markup=False)
            yield Static(self._text, markup=False)
            yield self.waiting()
            with Horizontal():
                yield Button("No (n)", id="no")
                yield Button("Yes (y)", id="yes", variant="primary")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#no").focus()

    def look_again(self) -> None:
        """Close where there is nothing to ask any more, and say why."""
        why = self._pointless()
        if why:
            self.notify(why, severity="warning")
            self.dismiss(False)

    def action_other(self) -> None:
        self.focus_next()

    def action_answer(self, agreed: bool) -> None:
        self.dismiss(agreed)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if not self.too_soon:
            self.dismiss(event.button.id == "yes")
