"""What a chart shows: ticks, dots on few points, clipped outliers, the letter and colour of a run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dgcctl.tui import raster
from dgcctl.tui.palette import DARK, LIGHT, PLAIN, Palette
from dgcctl.tui.state.sign import sign_of
from dgcctl.tui.widgets.chart import GUTTER, Chart
from tests.tui import frames
from tests.tui.frames import lines, press, text
from tests.tui.test_run_screen import chart, opened, ready


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (-0.03, 0.04), (8.1, 8.9), (9.9, 10.1), (1e-7, 3e-7), (0, 93_800), (-5, 1e6), (7, 9)],
)
def test_an_axis_has_at_least_two_ticks(low: float, high: float, count: int) -> None:
    found = raster.ticks(low, high, count)
    assert len(found) >= 2
    assert low <= found[0] < found[-1] <= high
    assert np.allclose(np.diff(found), found[1] - found[0])
    assert len(found) <= max(6, 2 * count + 2)
    logs = raster.log_ticks(math.log10(high / 100 if high > 0 else 1), math.log10(high), count)
    assert len(logs) >= 2


@pytest.mark.parametrize("last", [0.4, 7, 59, 61, 3599, 90_000, 40 * 86_400])
def test_ticks_of_a_time_are_round(last: float) -> None:
    found = raster.time_ticks(0.0, last, 4)
    assert 2 <= len(found) <= 12
    assert found[-1] <= last


def test_small_ticks_lie_between_the_great_ones() -> None:
    assert raster.between([0.0, 10.0, 20.0], -3, 24, log=False) == [5.0, 15.0]
    tenths = raster.between([0.0, 1.0], 0.0, 1.0, log=True)
    assert np.allclose(10 ** np.array(tenths), range(2, 10))


def test_labels_of_an_axis_differ() -> None:
    assert len(set(raster.labels([812_340.0, 812_341.0]))) == 2
    assert raster.labels([0.5, 1.0]) == ["0.5", "1"]


def test_a_curve_of_one_value_is_a_flat_line() -> None:
    value = 812e6
    low, high = raster.limits([np.array([value, value + 1e-7])])
    assert high - low > 1e6


def test_outliers_and_diverged_curves_are_clipped() -> None:
    usual = np.concatenate([np.linspace(2.3, 0.3, 100), [50.0]])
    low, high = raster.robust_limits([[usual], [np.linspace(2.4, 0.4, 100)]])
    assert low < 0.3
    assert 2.3 < high < 3
    low, high = raster.robust_limits([[usual], [np.linspace(1e3, 1e6, 100)]])
    assert high < 3, "one diverged run does not flatten the other"
    assert raster.robust_limits([[np.array([math.nan])]]) is None


async def test_both_axes_have_ticks_between_their_ends(made_runs: Path) -> None:
    async with opened(made_runs, size=(120, 40)) as (dash, pilot):
        await ready(pilot)
        shown = lines(dash)
        bottom = next(line for line in shown if "step 600 " in line and "step 0" in line)
        assert "step 0" in bottom
        assert "200" in bottom
        assert "400" in bottom
        for found in frames.charts(dash):
            axis = [
                line[found.region.x + GUTTER - 1]
                for line in shown[found.region.y : found.region.bottom]
            ]
            assert axis.count("┼") >= 2, found.spec.title
            assert "┤" in axis, found.spec.title


async def test_few_points_have_a_dot_each(made_runs: Path) -> None:
    async with opened(made_runs, size=(120, 40)) as (dash, pilot):
        await ready(pilot)
        error, loss = chart(dash, "top-1 error"), chart(dash, "loss")
        assert drawn(error).count("•") == len(error.spec.traces[-1].x) == 6
        assert "•" not in drawn(loss)


def drawn(found: Chart) -> str:
    return "\n".join("".join(row) for row in found._buffer)


async def test_o_clips_what_lies_far_outside_and_says_so(runs: Path) -> None:
    async with opened(runs, "ccc001", size=(120, 40)) as (dash, pilot):
        await ready(pilot)
        batch = chart(dash, "batch %")
        highest = batch._high
        assert highest > 100, "NaN gives an error of 100 %"
        await press(pilot, ["o"])
        assert batch._high < 0.8 * highest
        assert "clipped" in lines(dash)[0]
        assert "▴" in drawn(batch)
        await press(pilot, ["o"])
        assert batch._high == highest


async def test_a_run_keeps_its_letter_and_colour_wherever_it_stands(made_runs: Path) -> None:
    async with frames.opened(made_runs, (120, 40)) as (dash, pilot):
        row = next(line for line in lines(dash) if "aaa001" in line)
        assert row.split()[0] == "A"
        await press(pilot, ["o", "o", "O", *"/bbb", "enter", "space"])
        assert next(line for line in lines(dash) if "bbb001" in line).startswith("●D")
        await press(pilot, ["escape", "O", "o", "o", "o", "o", "o", "o", "home", "enter"])
        await ready(pilot)
        traces = {trace.label: trace.colour for trace in chart(dash, "loss").spec.traces}
        assert traces == {"H": 7, "D": 3}
        assert "D 20260105T094500Z-demo_dense-bbb001" in text(dash)


async def test_letters_are_kept_when_an_older_run_is_deleted(runs: Path, tmp_path: Path) -> None:
    async with frames.opened(runs, state_dir=tmp_path / "state") as (dash, pilot):
        letters = {run_id: dash.store.sign(run_id).letter for run_id in dash.store.runs}
        await press(pilot, ["q"])
    gone = min(letters)
    for file in sorted((runs / gone).rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (runs / gone).rmdir()
    async with frames.opened(runs, state_dir=tmp_path / "state") as (dash, _):
        assert {run_id: dash.store.sign(run_id).letter for run_id in dash.store.runs} == {
            run_id: letter for run_id, letter in letters.items() if run_id != gone
        }


def test_a_thousand_runs_have_a_thousand_signs() -> None:
    assert [sign_of(number).letter for number in (0, 25, 26, 51, 52)] == [
        "A",
        "Z",
        "A1",
        "Z1",
        "A2",
    ]
    assert len({sign_of(number).letter for number in range(1000)}) == 1000


@pytest.mark.parametrize("theme", [DARK, LIGHT, PLAIN])
def test_raw_values_are_fainter_than_the_smoothed_line(theme: str) -> None:
    palette = Palette(theme)
    for number in range(8):
        assert palette.style(f"f{number}") != palette.style(f"s{number}")


async def test_curves_are_smoothed_a_little_unasked_over_their_raw_values(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        faint, front = chart(dash, "loss").spec.traces
        assert faint.faint
        assert not front.faint
        assert "smooth 0.6" in lines(dash)[0]
        assert 0 < np.abs(front.y - faint.y).mean() < np.abs(np.diff(faint.y)).mean()
        # the line is smoothed, and what is told in words is what was recorded
        (told, _) = chart(dash, "loss")._readout()[0]
        assert told == f"{front.label} {raster.short(float(faint.y[-1]))}"
        assert raster.short(float(front.y[-1])) not in told
