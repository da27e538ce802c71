"""What all questions share: no answer in the first moment, for it was typed for something else."""

from __future__ import annotations

import math
from typing import TypeVar, cast

from textual.events import Event, Key, Mount, Paste
from textual.screen import ModalScreen
from textual.widgets import Static

from dgcctl.tui.host import Host

WAIT = "A key was pressed too soon to be an answer: let go, then press it once."
DEAF = 0.3  # seconds; nobody has read the question before
Answer = TypeVar("Answer")


class Question(ModalScreen[Answer]):
    """Takes no answer until it has been there for DEAF seconds, and no key came for as long that
    was not heard.
    """

    DEFAULT_CSS = "Question #wait { height: auto; color: $warning; }"
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012  Textual's own declaration

    def __init__(self) -> None:
        super().__init__()
        # never, until it is on screen: before that nobody can have read it
        self._hears_from = math.inf

    @property
    def host(self) -> Host:
        """The app, as far as a screen knows it."""
        return cast(Host, self.app)

    async def on_event(self, event: Event) -> None:
        # who leaves at once (ctrl+q) is gone before the widgets are there
        if not isinstance(event, Mount) or self.query("#wait"):
            await super().on_event(event)

    def on_mount(self) -> None:
        self._hears_from = self.host.options.tick() + DEAF

    def answers(self, event: Key | Paste) -> bool:
        """Whether this key would answer (or prepare an answer)."""
        return True

    def deaf(self, event: Key | Paste, at: float) -> bool:
        """Whether a key that was pressed `at` is not heard. A key that is held down comes again and
        again: each that is not heard puts the answer off.
        """
        if at >= self._hears_from or not self.answers(event):
            return False
        self._hears_from = max(self._hears_from, at + DEAF)
        for line in self.query("#wait").results(Static):
            line.update(WAIT)
        return True

    def waiting(self) -> Static:
        """The line that says why a key was not heard."""
        return Static("", id="wait", markup=False)

    @property
    def too_soon(self) -> bool:
        """For the mouse: the second of two clicks would fall on a button that has just come."""
        return self.host.options.tick() < self._hears_from
