"""A screen that is on the stack while its widgets are not there yet, or no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgcctl.tui.screens.base import DashScreen
from dgcctl.tui.screens.question import Question
from dgcctl.tui.screens.run_screen import RunScreen
from tests.tui import frames


async def test_news_for_a_screen_without_its_widgets_does_not_end_the_dashboard(runs: Path) -> None:
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        dash.open_run(next(iter(dash.store.runs)))
        await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen) and dash.screen.ready)
        await dash.screen.query("*").remove()
        assert not dash.screen.ready
        dash.look_soon()
        await pilot.pause(0.2)
        assert dash.is_running


@pytest.mark.parametrize(
    "keys", ["?", "n", "s", ["n", "enter"], ["enter"], ["enter", "g"], [*"  d"]]
)
async def test_a_screen_whose_widgets_never_came_ends_nothing(
    runs: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is where one leaves while it opens: Textual mounts nothing in what is closing."""
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        await frames.press(pilot, [*keys][:-1])
        for kind in (DashScreen, Question):
            monkeypatch.setattr(kind, "mount_composed_widgets", _none_come)
        before = len(dash.screen_stack)
        frames.type_key(dash, [*keys][-1])
        await frames.heard(pilot)
        assert len(dash.screen_stack) == before + 1
        assert not dash.screen.query("*")
        assert dash.is_running


async def _none_come(screen: object, widgets: object) -> None:
    pass
