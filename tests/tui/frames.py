"""Run the dashboard without a terminal over made runs: the ground of the tests, snapshots and screenshots."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from dgcctl.tui.app import DashApp
from dgcctl.tui.clock import fixed
from dgcctl.tui.options import Options
from dgcctl.tui.processes import Sample
from tests.tui.synthetic import T0

NOW = T0 + 9000
SMALL, LARGE = (80, 24), (160, 48)


def same_sample(pid: int) -> Sample:
    """A look at a process that is always the same."""
    return Sample(cpu=183.0, rss=812 << 20, processes=3, host_cpu=91.0, host_memory=41.0)


def options(runs: Path, **changes: Any) -> Options:
    """Options under which a frame depends on nothing but the runs."""
    fixed_facts: dict[str, Any] = {
        "interval": 0.02, "clock": fixed(NOW), "free_bytes": lambda path: 40 << 30, "sample": same_sample,
    }  # fmt: skip
    return Options(runs, **{**fixed_facts, **changes})


def app(runs: Path, **changes: Any) -> DashApp:
    return DashApp(options(runs, **changes))


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


async def until(pilot: Pilot[None], holds: Any, seconds: float = 10.0) -> None:
    """Wait until something holds."""
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        await pilot.pause(0.02)
    raise AssertionError(f"did not happen in {seconds} s")


async def settled(pilot: Pilot[None], seconds: float = 0.12) -> None:
    """Wait until nothing more arrives for a while."""
    dash = pilot.app
    assert isinstance(dash, DashApp)
    before = -1
    while before != dash.store.version:
        before = dash.store.version
        await pilot.pause(seconds)


async def press(pilot: Pilot[None], keys: Sequence[str]) -> None:
    for key in keys:
        await pilot.press(key)
    await settled(pilot)


def refresh_seconds(dash: DashApp) -> float:
    """What a key costs until its frame is there, in seconds of this thread (the machine may be busy with others)."""
    began = time.thread_time()
    dash.screen.action_log_y()  # type: ignore[attr-defined]
    lines(dash)
    return time.thread_time() - began


def notified(dash: DashApp) -> str:
    """What the notifications say (on screen a long one is broken into lines)."""
    return "\n".join(f"{found.title}: {found.message}" for found in dash._notifications)


def lines(dash: DashApp) -> list[str]:
    """The frame as text."""
    return ["".join(segment.text for segment in strip) for strip in dash.screen._compositor.render_strips()]


def text(dash: DashApp) -> str:
    return "\n".join(lines(dash))
