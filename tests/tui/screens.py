"""How to reach every screen: for the tests of how they look and for the pictures in the
documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from dgcctl.tui.app import DashApp
from tests.tui import frames


@dataclass(frozen=True)
class Screen:
    """`marks` and `chosen` are ends of ids; `keys` are pressed on the Runs screen, or on the run
    that is opened.
    """

    name: str
    keys: Sequence[str] = ()
    marks: Sequence[str] = ()
    chosen: str = ""
    open: tuple[str, ...] = ()
    # in dark alone, where a screen of the same parts is there in all themes
    all_themes: bool = True

    async def reach(self, dash: DashApp, pilot: Pilot[Any], runs: Path) -> None:
        """By keys alone, and each only when all that the poller has to tell has been told."""
        await _everything_told(dash, pilot)
        for ending in self.marks:
            dash.screen.listing.go(_id(dash, ending))
            await pilot.press("space")
        if self.chosen:
            dash.screen.listing.go(_id(dash, self.chosen))
        for key in self.keys:
            await pilot.press(key)
        await _everything_told(dash, pilot)


async def _everything_told(dash: DashApp, pilot: Pilot[Any]) -> None:
    """Wait for the list, the disk, the machine, and the logs and records of what is shown."""
    await frames.until(
        pilot, lambda: dash.complete and bool(dash.store.samples) and dash.store.free is not None
    )
    await frames.settled(pilot)


def _id(dash: DashApp, ending: str) -> str:
    return next(run_id for run_id in dash.store.runs if run_id.endswith(ending))


_CURSOR = ("shift+left",) * 2
SCREENS = (
    Screen("runs", marks=("aaa001", "bbb001"), chosen="ddd001"),
    Screen("runs-grouped", ("v",), all_themes=False),
    Screen("run", ("plus", *_CURSOR), open=("fff001", "aaa001")),
    Screen("run-failed", ("l",), open=("ccc001",), all_themes=False),
    Screen("run-metrics", ("m",), open=("aaa001",), all_themes=False),
    Screen("run-usage", ("u",), open=("fff001", "aaa001"), all_themes=False),
    Screen("run-filter", ("slash", *"loss", "enter"), open=("fff001",), all_themes=False),
    Screen("run-log-search", ("l", "slash", *"loss", "enter"), open=("aaa001",), all_themes=False),
    Screen("gates", ("g", "down", "right")),
    Screen("compare", ("d",), marks=("aaa001", "aaa002", "aaa003", "bbb001")),
    Screen("compare-differences", ("d", "x"), marks=("aaa001", "bbb001"), all_themes=False),
    Screen(
        "compare-scatter",
        ("d", "x", "x"),
        marks=("aaa001", "aaa002", "aaa003", "bbb001"),
        all_themes=False,
    ),
    Screen("recipes", ("n", "down", "tab", "down", "down")),
    Screen("help", ("question_mark",)),
    Screen("confirm", ("s",)),
)
