"""Whatever comes late (the list, a log, the machine, the disk): the frame is the same in the end."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgcctl.tui.state.feed import Follower
from dgcctl.tui.state.poller import Catalogue
from tests.tui import frames
from tests.tui.screens import SCREENS

LATE = 0.4


def slowed(work: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any) -> Any:
        time.sleep(LATE)
        return work(*arguments)

    return slow


async def reached(runs: Path, name: str, size: tuple[int, int], **changes: Any) -> list[str]:
    screen = next(screen for screen in SCREENS if screen.name == name)
    dash = frames.app(runs, open=screen.open, **changes)
    async with dash.run_test(size=size) as pilot:
        await screen.reach(dash, pilot, runs)
        return frames.lines(dash)


@pytest.mark.parametrize("size", [frames.SMALL, frames.LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", ["runs", "confirm"])
@pytest.mark.parametrize("late", ["list", "logs", "machine", "disk"])
async def test_what_comes_late_changes_nothing(
    made_runs: Path, name: str, size: tuple[int, int], late: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await reached(made_runs, name, size)
    changes = {}
    if late == "list":
        monkeypatch.setattr(Catalogue, "look", slowed(Catalogue.look))
    elif late == "logs":
        monkeypatch.setattr(Follower, "poll", slowed(Follower.poll))
    elif late == "machine":
        changes["sample"] = slowed(frames.same_sample)
    else:
        changes["free_bytes"] = slowed(lambda path: 40 << 30)
    assert await reached(made_runs, name, size, **changes) == expected
