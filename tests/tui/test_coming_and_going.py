"""A screen that is on the stack while its widgets are not there yet, or no longer."""

from __future__ import annotations

from pathlib import Path

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
