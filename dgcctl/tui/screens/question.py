"""What all questions share: no answer in the first moment, for it was typed for something else."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from textual.events import Key, Paste
from textual.screen import ModalScreen

if TYPE_CHECKING:
    from dgcctl.tui.app import DashApp

DEAF = 0.3  # seconds; nobody has read the question before
Answer = TypeVar("Answer")


class Question(ModalScreen[Answer]):
    """Takes no answer until it has been there for DEAF seconds."""

    app: DashApp

    def __init__(self) -> None:
        super().__init__()
        self._hears_from = math.inf

    def on_mount(self) -> None:
        self._hears_from = self.app.options.tick() + DEAF

    def answers(self, event: Key | Paste) -> bool:
        """Whether this key would answer (or prepare an answer)."""
        return True

    def deaf(self, event: Key | Paste, at: float) -> bool:
        """Whether a key that was pressed `at` is not heard."""
        return at < self._hears_from and self.answers(event)

    @property
    def too_soon(self) -> bool:
        """For the mouse: the second of two clicks would fall on a button that has just come."""
        return self.app.options.tick() < self._hears_from
