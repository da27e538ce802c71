"""What the screens say and where they draw it: levels, cuts, gaps, targets, pointers, one message
an end.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from dgc.run.paths import RunDir
from dgc.run.status import write_status
from dgc.talk import shown
from dgcctl.core.runs.listing import read_run
from dgcctl.tui import actions, keys, raster
from dgcctl.tui.state import drawer_rows
from dgcctl.tui.state.alerts import AlertMonitor
from dgcctl.tui.state.feed import Feed
from dgcctl.tui.state.poller import Listed
from dgcctl.tui.state.store import Store
from dgcctl.tui.state.view import View
from dgcctl.tui.widgets.bar import fitting
from dgcctl.tui.widgets.chart import Chart
from dgcctl.tui.widgets.virtual_table import Listing
from tests.tui import frames, synthetic
from tests.tui.frames import lines, press, text


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("2026-01-05T09:00:00Z info: epoch 1: top-1 error 9.31 %, loss 0.3 on 10,000 images", ""),
        ("2026-01-05T09:00:00Z info: no warning was given", ""),
        ("2026-01-05T09:00:00Z warning: the loader is the bottleneck", "warn"),
        ("2026-01-05T09:00:00Z error: loss is NaN", "bad"),
        ("error: no space left on device", "bad"),
        ("Traceback (most recent call last):", "bad"),
        ("ValueError: bad", "bad"),
        ("torch.OutOfMemoryError: CUDA out of memory", "bad"),
        ("KeyboardInterrupt", "bad"),
        ("/x/y.py:3: UserWarning: deprecated", "warn"),
        ("top1_error 9.3", ""),
        ("", ""),
    ],
)
def test_a_line_of_the_log_has_the_colour_of_its_kind(tmp_path: Path, line: str, role: str) -> None:
    run = synthetic.make(tmp_path, synthetic.Spec())
    run.log.write_text(line + "\n\n")
    store = Store(View())
    store.take(Listed((read_run(run),)))
    found = drawer_rows.find("log", "", store, read_run(run), [])
    assert found.rows[0].cells == ((line, role),) or not line


def test_no_key_of_a_screen_is_a_key_of_its_lists() -> None:
    """`k` went up in a list, and so never opened the checkpoints there."""
    in_lists = {
        part.strip()
        for binding in Listing.BINDINGS
        for part in binding.key.split(",")  # type: ignore[union-attr]
        if binding.key != "enter"  # type: ignore[union-attr]
    }
    taken = {part for table in keys.TABLES.values() for key in table for part in key.key.split(",")}
    assert taken & in_lists == set()


async def test_a_bad_filter_says_what_is_wrong_with_it(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        problem = "nonsense>>" + "x" * 100
        await press(pilot, ["/", *problem, "enter"])
        told = dash.store.shown().problem
        assert len(told) > 80
        begin = lines(dash)[0].split("8/8  ")[1].rstrip()
        assert begin.endswith("…")
        assert told.startswith(begin.removesuffix("…"))
        assert len(begin) > 40


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=6), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_what_is_too_long_is_cut_and_seen_to_be_cut(cells: list[str], room: int) -> None:
    cells = [shown(cell) for cell in cells]
    told = [told for told, _ in fitting(cells, room)]
    assert cell_len("".join(told).rstrip()) <= room
    assert told == cells or told[-1].endswith("…")


async def test_there_is_one_gap_on_the_screen_of_a_run(made_runs: Path) -> None:
    for size in (frames.SMALL, frames.LARGE):
        async with frames.opened(made_runs, size, open=("ccc001",)) as (dash, pilot):
            await press(pilot, ["left"])
            assert text(dash).count("gap ") == 1
            assert "gap +26.64" in text(dash)


def test_the_gap_is_that_of_the_last_error_by_which_a_run_is_judged() -> None:
    from dgcctl.tui import run_head
    from dgcctl.tui.state.run_facts import Target

    class Known(Store):
        def best(self, run: object) -> float:
            return 8.0

        def last(self, run: object) -> float:
            return 9.8

    run = type("Run", (), {"id": "r"})()
    feed = Feed(RunDir(Path("absent")))
    told = run_head._figures(Known(View()), run, feed, Target("top1_error", 9.0, 0.5, "ours"))
    assert "error 9.80  best 8.00  " in told
    assert ("… target 9±0.5 gap +0.80  ", "target") in told


@given(
    st.floats(0, 1),
    st.integers(1, 60),
    st.integers(1, 120),
    st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)),
)
@example(0.5, 2, 1, (0.0, 201364.75))  # halfway between two dots, where the last bit decides
@settings(max_examples=300, deadline=None)
def test_lines_and_points_lie_where_a_curve_of_the_same_value_lies(
    share: float, height: int, width: int, interval: tuple[float, float]
) -> None:
    """Grid, target, cursor and points of a scatter go to the cell in which a curve has its dot."""
    low, high = interval[0], interval[0] + interval[1]
    value = min(high, low + share * (high - low))
    spans = raster.spans(np.array([value]), np.array([value]), low, high, 2 * width)
    ((column, row, _),) = raster.characters(raster.cells(spans, low, high, width, height))
    assert raster.dot(value, high, low, 4 * height) // 4 == row
    assert raster.dot(value, low, high, 2 * width) // 2 == column


@pytest.mark.parametrize("columns", [70, 80, 81, 95, 110, 160])
async def test_you_are_here_points_at_the_cursor(made_runs: Path, columns: int) -> None:
    async with frames.opened(made_runs, (columns, 30)) as (dash, pilot):
        await press(pilot, ["g"])
        chart = dash.screen.query_one("#schedule", Chart)
        frame = [
            line[chart.region.x :] for line in lines(dash)[chart.region.y : chart.region.bottom]
        ]
        pointer = next(line for line in frame if "▲" in line)
        assert "you are here: 70%" in pointer or columns < 80
        assert pointer.index("▲") == chart._column(70.0)
        assert abs((pointer.index("▲") - 8) / chart._width - 0.7) <= 1 / chart._width


class _Ended:
    def __init__(self, code: int) -> None:
        self._code = code

    def poll(self) -> int:
        return self._code


def test_a_stop_that_was_asked_for_is_told_once_and_not_in_red(tmp_path: Path) -> None:
    spec = synthetic.Spec(state="running", pid=os.getpid(), now_step=100)
    run = synthetic.make(tmp_path, spec)
    store, monitor, trainers = Store(View()), AlertMonitor(), actions.Trainers()
    trainers._processes.append((run, _Ended(75), 0.0))  # type: ignore[arg-type]
    store.take(Listed((read_run(run),)))
    monitor.look(store)
    status = synthetic.set_status(run, replace(spec, state="stopped"))
    write_status(run, replace(status, exit_code=75))
    assert trainers.reap() == []
    store.take(Listed((read_run(run),)))
    assert [(alert.level, alert.title) for alert in monitor.look(store)] == [
        ("information", f"{run.id} stopped")
    ]


@pytest.mark.parametrize("first", ["process", "record"])
def test_the_end_of_a_run_that_was_started_here_is_told_once(tmp_path: Path, first: str) -> None:
    spec = synthetic.Spec(state="running", pid=os.getpid(), now_step=100)
    run = synthetic.make(tmp_path, spec)
    store, monitor = Store(View()), AlertMonitor()
    store.take(Listed((read_run(run),)))
    monitor.look(store)
    told = 0
    if first == "process":
        told += monitor.tells_end(run.id)
        told += len(monitor.look(store))
    synthetic.set_status(run, replace(spec, state="failed"))
    store.take(Listed((read_run(run),)))
    told += len(monitor.look(store))
    if first == "record":
        told += monitor.tells_end(run.id)
    assert told == 1
    synthetic.set_status(run, spec)
    store.take(Listed((read_run(run),)))
    assert monitor.look(store) == []
    synthetic.set_status(run, replace(spec, state="failed"))
    store.take(Listed((read_run(run),)))
    assert len(monitor.look(store)) == 1, "its next end is another one"
