"""Run the dashboard without a terminal over made runs: what tests and screenshots are made with."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from textual import events
from textual.app import App
from textual.keys import _character_to_key
from textual.pilot import Pilot

from dgcctl.tui.app import DashApp
from dgcctl.tui.start_options import Options
from dgcctl.tui.state.clock import fixed
from dgcctl.tui.state.processes import Sample
from dgcctl.tui.widgets.chart import Chart
from tests.tui.synthetic import T0
from tests.waiting import Patience

NOW = T0 + 9000
RECIPES = {path.stem: path for path in sorted((Path(__file__).parent / "recipes").glob("*.yaml"))}
SMALL, LARGE = (80, 24), (160, 48)


def same_sample(pid: int) -> Sample:
    """A look at a process that is always the same."""
    return Sample(cpu=183.0, rss=812 << 20, processes=3, host_cpu=91.0, host_memory=41.0)


def options(runs: Path, **changes: Any) -> Options:
    """Options under which a frame depends on nothing but the runs."""
    fixed_facts: dict[str, Any] = {
        "interval": 0.02, "clock": fixed(NOW), "free_bytes": lambda path: 40 << 30, "sample": same_sample,
        "recipes": lambda: RECIPES, "tick": Ticks(),
    }  # fmt: skip
    return Options(runs, **{**fixed_facts, **changes})


def app(runs: Path, **changes: Any) -> DashApp:
    return DashApp(options(runs, **changes))


class Ticks:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@asynccontextmanager
async def opened(
    runs: Path, size: tuple[int, int] = SMALL, **changes: Any
) -> AsyncIterator[tuple[DashApp, Pilot[None]]]:
    """A running dashboard that has listed its runs."""
    dash = app(runs, **changes)
    async with dash.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: dash.complete)
        await settled(pilot)
        yield dash, pilot


async def until(pilot: Pilot[None], holds: Callable[[], object]) -> None:
    """Wait until something holds; a dashboard that has ended does nothing more."""
    patience = Patience("what the dashboard was to do", _Dashboard(pilot.app))
    while not holds():
        patience.check()
        await pilot.pause(0.005)


@dataclass(frozen=True)
class _Dashboard:
    """As a process that may have ended."""

    app: App[None]

    def poll(self) -> int | None:
        return self.app.return_code

    def last_words(self) -> str:
        return f"\n{text(self.app)}" if self.app.return_code is None else ""


async def settled(pilot: Pilot[None]) -> None:
    """Wait until all that has happened is on screen: the poller has looked twice, and nothing came
    of it.
    """
    dash = pilot.app
    assert isinstance(dash, DashApp)
    version = -1
    while version != dash.store.version and dash.return_code is None:
        version, looks = dash.store.version, dash.poller.looks
        await until(pilot, partial(_looked, dash, looks + 2))
        await pilot.pause(0)


def _looked(dash: DashApp, often: int) -> bool:
    """The poller has looked so often and all that the screen needs is shown (or the app has ended)."""
    return dash.return_code is not None or (dash.poller.looks >= often and dash.complete)


async def press(pilot: Pilot[None], keys: Sequence[str]) -> None:
    """Press keys a second apart on the injected clock, each when the one before has done its work."""
    dash = pilot.app
    assert isinstance(dash, DashApp)
    for key in keys:
        dash.options.tick.advance(1.0)  # type: ignore[attr-defined]
        type_key(dash, key)
        await heard(pilot)
    dash.options.tick.advance(1.0)  # type: ignore[attr-defined]
    await settled(pilot)


def type_key(dash: DashApp, key: str) -> None:
    """What the terminal does when a key is pressed."""
    typed = len(key) == 1
    dash.post_message(events.Key(_character_to_key(key) if typed else key, key if typed else None))


async def heard(pilot: Pilot[None]) -> None:
    """Wait until all keys have done their work, or wait for something that is being read."""
    dash = pilot.app
    assert isinstance(dash, DashApp)
    await pilot.pause(0)
    await until(
        pilot, lambda: dash.hearing.idle or dash.hearing.waits or dash.return_code is not None
    )


def opened_by_a_key(dash: DashApp) -> list[str]:
    """Names of the files that this thread opens from a key to its frame: no log among them makes a
    key wait.
    """
    hook = _opens()
    hook.names, hook.thread = [], threading.get_ident()
    dash.screen.action_log_y()  # type: ignore[attr-defined]
    lines(dash)
    hook.thread = 0
    return hook.names


class _Opens:
    """Notes what one thread opens. An audit hook cannot be taken away again: there is one, and it
    can be off.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.thread = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and threading.get_ident() == self.thread:
            self.names.append(os.path.basename(str(arguments[0])))


@cache
def _opens() -> _Opens:
    hook = _Opens()
    sys.addaudithook(hook)
    return hook


def notified(dash: DashApp) -> str:
    """What the notifications say (on screen a long one is broken into lines)."""
    return "\n".join(f"{found.title}: {found.message}" for found in dash._notifications)


def charts(dash: DashApp) -> list[Chart]:
    """The charts that are seen."""
    return [chart for chart in dash.screen.query(Chart) if chart.display]


def lines(dash: DashApp) -> list[str]:
    """The frame as text."""
    return [
        "".join(segment.text for segment in strip)
        for strip in dash.screen._compositor.render_strips()
    ]


def text(dash: DashApp) -> str:
    return "\n".join(lines(dash))
