"""Every screen as a picture, at 80 x 24 and 160 x 48, dark, light and without colour, against the accepted one.

`pytest tests/tui/test_snapshots.py --snapshot-update` accepts new ones: look at them first (`make screenshots`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from dgcctl.tui import palette
from dgcctl.tui.app import DashApp
from tests.tui import frames
from tests.tui.screens import SCREENS, Screen

SIZES = {"80x24": frames.SMALL, "160x48": frames.LARGE}
THEMES = {"dark": palette.DARK, "light": palette.LIGHT, "plain": palette.PLAIN}


# Each theme and each size once in `make test`; all of them in the full form.
QUICK = {("80x24", "dark"), ("160x48", "light"), ("80x24", "plain")}


def _marks(screen: Screen, size: str, theme: str) -> list[pytest.MarkDecorator]:
    return [] if screen.all_themes and (size, theme) in QUICK else [pytest.mark.slow]


CASES = [
    pytest.param(screen, size, theme, id=f"{screen.name}-{size}-{theme}", marks=_marks(screen, size, theme))
    for screen in SCREENS
    for size in SIZES
    for theme in (THEMES if screen.all_themes else ["dark"])
]


@pytest.mark.parametrize(("screen", "size", "theme"), CASES)
def test_the_screen_looks_as_it_was_accepted(
    made_runs: Path, snap_compare: Callable[..., bool], screen: Screen, size: str, theme: str
) -> None:
    app = frames.app(made_runs, theme=THEMES[theme], open=screen.open)

    async def reach(pilot: Pilot[Any]) -> None:
        assert isinstance(pilot.app, DashApp)
        await screen.reach(pilot.app, pilot, made_runs)

    assert snap_compare(app, terminal_size=SIZES[size], run_before=reach)
