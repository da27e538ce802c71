"""The window may be resized to anything, at any moment: it never ends the dashboard."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from rich.cells import cell_len

from dgcctl.tui.app import DashApp
from dgcctl.tui.widgets.chart import Chart
from tests.tui import frames

PLACES = (
    (), ("enter",), ("enter", "l"), ("enter", "m", "/"), ("g",), ("n",), ("question_mark",), ("s",), ("ctrl+p",),
    ("space", "space", "space", "d"), ("space", "space", "d", "x", "x"), ("n", "enter"), ("/", "x"),
)  # fmt: skip
QUICK, FULL = 6, 120
EDGES = ((1, 1), (80, 4), (120, 40), (300, 80), (1, 80), (300, 1), (17, 3), (80, 24))
MEANWHILE = ("down", "t", "y", "x", "left", "z", "f", "escape", "tab", "plus")


def sizes(dice: random.Random, steps: int) -> list[tuple[int, int]]:
    return [
        (
            dice.choice(EDGES)
            if dice.random() < 0.3
            else (
                dice.randint(1, 300) if dice.random() < 0.3 else dice.randint(1, 90),
                dice.randint(1, 80),
            )
        )
        for _ in range(steps)
    ]


def fills(dash: DashApp, size: tuple[int, int]) -> bool:
    shown = frames.lines(dash)
    return len(shown) == size[1] and {cell_len(line) for line in shown} == {size[0]}


async def resized(runs: Path, place: tuple[str, ...], seed: int, steps: int) -> None:
    """Resize, and draw at once or later, with a key or without; each frame fills the window."""
    dice = random.Random(seed)
    async with frames.opened(runs) as (dash, pilot):
        await frames.press(pilot, place)
        for size in sizes(dice, steps):
            await pilot.resize_terminal(*size)
            if dash.front is not None and dice.random() < 0.5:
                dash.front.look()
            if dice.random() < 0.3:
                await frames.press(pilot, [dice.choice(MEANWHILE)])
            assert dash.return_code is None
            if dice.random() < 0.5:
                await frames.until(pilot, partial(fills, dash, size))
        await frames.settled(pilot)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(place) or "runs")
async def test_any_size_may_follow_any_other(made_runs: Path, place: tuple[str, ...]) -> None:
    await resized(made_runs, place, PLACES.index(place), QUICK)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(place) or "runs")
async def test_any_size_may_follow_any_other_for_long(
    made_runs: Path, place: tuple[str, ...]
) -> None:
    await resized(made_runs, place, 1000 + PLACES.index(place), FULL)


@pytest.mark.parametrize(
    "place", [("enter",), ("g",), ("space", "space", "d", "x", "x"), ()], ids=str
)
async def test_a_terminal_that_grows_from_four_lines_is_drawn(
    made_runs: Path, place: tuple[str, ...]
) -> None:
    async with frames.opened(made_runs, (80, 4)) as (dash, pilot):
        await frames.press(pilot, place)
        await pilot.resize_terminal(120, 40)
        assert dash.front is not None
        dash.front.look()
        dash.front.redraw()
        await frames.settled(pilot)
        assert any(0x2800 < ord(letter) < 0x2900 or letter == "◆" for letter in frames.text(dash))


async def test_the_first_preview_shows_the_curve_without_a_key(made_runs: Path) -> None:
    async with frames.opened(made_runs, (120, 40)) as (dash, _):
        assert "no values yet" not in frames.text(dash)
        assert "⣀" in frames.text(dash)


async def test_a_chart_without_room_for_lines_says_its_last_values(
    made_runs: Path,
) -> None:
    """It kept the picture for which it once had room."""
    async with frames.opened(made_runs, (100, 30), open=["fff001"]) as (dash, pilot):
        await frames.settled(pilot)
        chart = dash.screen.query(Chart).first()
        assert "┄" in "".join(strip.text for strip in map(chart.render_line, range(5)))
        chart.styles.height = chart.styles.max_height = 3
        await frames.settled(pilot)
        assert chart.size.height == 3
        shown = [chart.render_line(y).text.strip() for y in range(3)]
        assert shown[0].startswith("top-1 error  ")
        assert " 8.444" in shown[0]
        assert shown[1:] == ["", ""]
        y = chart.region.y
        assert [line[: chart.size.width].strip() for line in frames.lines(dash)[y : y + 3]] == shown
