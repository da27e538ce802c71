"""What is seen where there is little room (columns, messages), and one step back for each Escape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from dgcctl.tui.app import DashApp
from dgcctl.tui.state.run_facts import short_id
from dgcctl.tui.state.run_rows import COLUMNS
from dgcctl.tui.toasts import fitted
from dgcctl.tui.widgets.virtual_table import Listing
from tests.tui import frames
from tests.tui.frames import lines, notified, press, text

# --- columns --------------------------------------------------------------------------------------


def listed(dash: DashApp) -> list[str]:
    at = dash.screen.query_one(Listing).region
    return lines(dash)[at.y : at.bottom]


def heads(dash: DashApp) -> list[str]:
    """Titles of the columns that stand over the list of runs."""
    titles = listed(dash)[0].replace("▲", "").replace("▼", "").split()
    return [column.title for column in COLUMNS if column.title in titles]


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 100, 160])
async def test_columns_go_in_their_order_and_state_and_run_stay(
    made_runs: Path, width: int
) -> None:
    async with frames.opened(made_runs, (width, 30)) as (dash, _):
        there = heads(dash)
        shown = [column for column in COLUMNS if column.title != "tags"]  # nobody gave any
        gone = [column for column in shown if column.title and column.title not in there]
        assert {"state", "run"} <= set(there)
        order = sorted((column.drop for column in shown if column.drop), reverse=True)
        dropped = sorted((column.drop for column in gone if column.drop), reverse=True)
        assert dropped == order[: len(dropped)]
        rows = listed(dash)[1 : 1 + len(dash.store.runs)]
        for run, row in zip(dash.store.shown().runs, rows, strict=True):
            assert run.state in row, "in words"
            assert cell_len(row) == width
            assert short_id(run.id)[-6:] in row or ("…" in row and width < 60)


async def test_the_columns_of_a_wide_screen_are_all_there(made_runs: Path) -> None:
    async with frames.opened(made_runs, (160, 30)) as (dash, _):
        assert heads(dash) == [c.title for c in COLUMNS if c.title and c.title != "tags"]


# --- messages -------------------------------------------------------------------------------------

LONG = "control/stop: cannot be written (Read-only file system): " + "and so on " * 60


@pytest.mark.parametrize("size", [(20, 8), (30, 10), (40, 10), (60, 12), (80, 24), (160, 48)])
async def test_a_message_begins_within_the_window_and_shows_that_it_was_cut(
    made_runs: Path, size: tuple[int, int]
) -> None:
    async with frames.opened(made_runs, size) as (dash, pilot):
        dash.notify(LONG, title="not started", severity="error")
        await frames.settled(pilot)
        await frames.until(pilot, lambda: dash.screen.query("Toast"))
        await frames.settled(pilot)
        assert "not started" in text(dash)
        seen = letters("".join(line.partition("▌")[2] for line in lines(dash) if "▌" in line))
        assert letters("control/stop: cannot be") in seen or size < (30, 10)
        assert "control/s" in seen
        assert "…" in seen or letters(LONG) in seen


def letters(text: str) -> str:
    """Without what the screen below shows beside a message (bars, dots of a chart)."""
    return re.sub(r"[^A-Za-z/:()…-]", "", text)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 80), (300, 1), (80, 24)])
def test_a_message_of_any_length_has_a_beginning_in_any_window(size: tuple[int, int]) -> None:
    for message in ("", "x", "x" * 5000, "漢字 " * 400, "a\n\nb", "\x1b[2J" * 90):
        title, told = fitted("a title\x07 of some length", message, *size)
        assert (title + told).replace("\n", "").isprintable()
        assert len(told.split("\n")) <= max(1, size[1] - 5) or told.count("\n") == message.count(
            "\n"
        )
        assert bool(told) == bool(message)
    assert fitted("", "stopped", 80, 24) == ("", "stopped")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (("s", "y"), "asked to stop"),
        (("c", "y"), "asked to checkpoint"),
        (("r",), "only a run that stopped, failed or died can be resumed"),
        (("d",), "mark two or more runs"),
        (("enter", "p"), "pinned"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
async def test_one_key_is_answered_by_one_message(
    runs: Path, keys: tuple[str, ...], told: str
) -> None:
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        dash.screen.query_one(Listing).go(
            next(run_id for run_id in dash.store.runs if run_id.endswith("fff001"))
        )
        await press(pilot, keys)
        assert notified(dash).count(told) == 1
        assert len(list(dash._notifications)) == 1


# --- escape ---------------------------------------------------------------------------------------

WAYS = (
    ("enter",), ("g",), ("n",), ("question_mark",), ("s",), ("enter", "g"), ("enter", "question_mark"),
    ("n", "question_mark"), ("g", "question_mark"), ("enter", "s"), ("n", "enter"), ("space", "space", "d"),
    ("space", "space", "d", "question_mark"), ("ctrl+p",),
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids="-".join)
async def test_each_escape_is_one_screen_back_and_none_leaves_the_dashboard(
    runs: Path, way: tuple[str, ...]
) -> None:
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        stacks = [list(dash.screen_stack)]
        for key in way:
            await press(pilot, [key])
            if list(dash.screen_stack) != stacks[-1]:
                stacks.append(list(dash.screen_stack))
        assert len(stacks) > 1, "each way leads somewhere"
        for before in reversed(stacks[:-1]):
            await press(pilot, ["escape"])
            assert list(dash.screen_stack) == before
        await press(pilot, ["escape", "escape"])
        assert list(dash.screen_stack) == stacks[0]
        assert dash.return_code is None


async def test_escape_drops_search_cursor_and_zoom_before_it_leaves(runs: Path) -> None:
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        here = list(dash.screen_stack)
        await press(pilot, ["enter", "z", "left"])
        run = list(dash.screen_stack)
        await press(pilot, ["escape"])
        assert list(dash.screen_stack) == run
        for _ in range(3):
            if list(dash.screen_stack) == run:
                await press(pilot, ["escape"])
        assert list(dash.screen_stack) == here
