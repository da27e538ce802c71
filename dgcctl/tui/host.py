"""What a screen needs of the app. The app knows the screens; no screen knows the app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dgcctl.tui.keys import Key
from dgcctl.tui.palette import Palette
from dgcctl.tui.start_options import Options
from dgcctl.tui.state.clock import Clock
from dgcctl.tui.state.store import Store
from dgcctl.tui.state.view import View
from dgcctl.tui.widgets.keyline import ShownKey


class Host(Protocol):
    """Everything that is known, how it is looked at, and the way to another screen."""

    @property
    def options(self) -> Options: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def store(self) -> Store: ...

    @property
    def left(self) -> View:
        """The view as an earlier dashboard left it."""

    @property
    def palette(self) -> Palette: ...

    @property
    def own_keys(self) -> Mapping[str, str]:
        """The keys to which the user gave another place, by id."""

    def written(self, key: Key) -> ShownKey:
        """A key as it is written now."""

    def all_followed(self, run_ids: Iterable[str]) -> bool:
        """Whether the logs of these runs have been read to their end."""

    def look_soon(self) -> None:
        """Let the screen look at what is known, at most once a frame."""

    def screen_changed(self) -> None:
        """Follow the logs that the screens need now."""

    def open_run(self, run_id: str, drawer: str = "") -> None: ...

    def open_gates(self, run_id: str) -> None: ...

    def open_compare(self, run_ids: Sequence[str]) -> None: ...

    def start_recipe(self, recipe: Path, overrides: Sequence[str]) -> None:
        """Start a run of a recipe and open it. Raises RecipeError."""
