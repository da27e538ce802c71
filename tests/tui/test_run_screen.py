"""The Run screen, as a user tells it."""

from pathlib import Path

import numpy as np
import pytest
from textual.pilot import Pilot

from dgcctl.tui.app import DashApp
from dgcctl.tui.screens.compare_screen import CompareScreen
from dgcctl.tui.screens.gates_screen import GatesScreen
from dgcctl.tui.screens.run_screen import RunScreen
from dgcctl.tui.widgets.chart import Chart
from tests.tui import frames, synthetic
from tests.tui.conftest import one
from tests.tui.frames import charts, lines, press, settled, text


def chart(dash: DashApp, title: str) -> Chart:
    return next(found for found in charts(dash) if found.spec.title == title)


def opened(runs: Path, run: str = "aaa001", size: tuple[int, int] = frames.SMALL, **changes):
    return frames.opened(runs, size, open=(run,), **changes)


async def ready(pilot: Pilot[None]) -> RunScreen:
    dash = pilot.app
    await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen) and dash.complete)
    await settled(pilot)
    return dash.screen


async def test_i_see_state_progress_eta_speed_and_the_machine_of_a_live_run(
    made_runs: Path,
) -> None:
    async with opened(made_runs, "fff001") as (dash, pilot):
        await ready(pilot)
        await frames.until(pilot, lambda: "CPU" in text(dash))
        frame = text(dash)
        for told in (
            "▶ running",
            "70%",
            "step 420/600",
            "epoch 4/6",
            "ETA 1m 30s",
            "398 images/s",
            "CPU 183%",
            "812 MiB",
        ):
            assert told in frame, told


async def test_i_see_why_a_run_failed(made_runs: Path) -> None:
    async with opened(made_runs, "ccc001") as (dash, pilot):
        await ready(pilot)
        assert "loss is NaN at step 230: lower optim.lr; last good: step-000200" in text(dash)
        assert "✗" in text(dash), "the place of the NaN is marked in the chart"


async def test_the_recipes_target_is_a_line_with_the_gap_to_it(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        assert "target 9" in lines(dash)[4]
        assert "╌╌╌" in text(dash)
        assert chart(dash, "top-1 error").spec.target == 9.0
        assert "✓ target 9±0.5 gap -0.79" in text(dash)


async def test_a_target_that_is_not_met_says_how_far_it_is(made_runs: Path) -> None:
    async with opened(made_runs, "ccc001") as (dash, pilot):
        await ready(pilot)
        assert "… target 9±0.5 gap +26.64" in text(dash)


async def test_marked_runs_lie_over_this_one_with_letters(made_runs: Path) -> None:
    async with frames.opened(made_runs, open=("aaa001", "bbb001")) as (dash, pilot):
        await ready(pilot)
        traces = chart(dash, "loss").spec.traces
        assert [trace.label for trace in traces] == ["A", "A", "D"]
        assert [trace.faint for trace in traces] == [True, False, False]
        assert "A demo_fashion-aaa001  D demo_dense-bbb001" in text(dash)


async def test_y_makes_the_vertical_axis_logarithmic_and_back(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["y"])
        assert chart(dash, "loss").spec.log
        assert "log y" in lines(dash)[0]
        await press(pilot, ["y"])
        assert not chart(dash, "loss").spec.log


async def test_x_goes_from_steps_to_epochs_to_time(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        seen = []
        for _ in range(3):
            seen.append(chart(dash, "loss").spec.window[1])
            await press(pilot, ["x"])
        assert seen == pytest.approx([600.0, 6.0, 300.1]), (
            "the last evaluation ends a tenth of a second after its step"
        )
        assert "x step" in lines(dash)[0]


async def test_plus_and_minus_smooth_and_zero_shows_the_raw_curve(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        raw = chart(dash, "loss").spec.traces[0].y
        await press(pilot, ["plus"])
        faint, front = chart(dash, "loss").spec.traces
        assert faint.faint
        assert np.abs(np.diff(front.y)).mean() < 0.5 * np.abs(np.diff(raw)).mean()
        assert "smooth 0.8" in lines(dash)[0]
        await press(pilot, ["minus"])
        assert "smooth 0.6" in lines(dash)[0]
        await press(pilot, ["0"])
        assert "raw" in lines(dash)[0]
        assert len(chart(dash, "loss").spec.traces) == 1


async def test_evaluations_are_never_smoothed(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        before = chart(dash, "top-1 error").spec.traces[0].y.tolist()
        await press(pilot, ["plus", "plus", "plus"])
        assert chart(dash, "top-1 error").spec.traces[-1].y.tolist() == before


async def test_schedules_are_never_smoothed(made_runs: Path) -> None:
    async with opened(made_runs, size=frames.LARGE) as (dash, pilot):
        await ready(pilot)
        before = {
            name: chart(dash, name).spec.traces[0].y.tolist()
            for name in ("learning rate", "inactive channels")
        }
        await press(pilot, ["plus", "plus", "plus"])
        for name, values in before.items():
            assert [trace.y.tolist() for trace in chart(dash, name).spec.traces] == [values]


async def test_the_arrows_move_one_cursor_in_all_charts_and_read_the_values(
    made_runs: Path,
) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["shift+left", "shift+left", "left"])
        cursors = {found.spec.cursor for found in charts(dash)}
        assert len(cursors) == 1
        step = cursors.pop()
        assert step is not None
        assert 100 < step < 600
        loss = chart(dash, "loss").spec.traces[0]  # as recorded, behind the smoothed line
        value = loss.y[int(np.argmin(np.abs(loss.x - step)))]
        assert f"loss  A {value:.4g}" in text(dash)
        assert f"▲ step {step:,.0f}" in text(dash)
        await press(pilot, ["escape"])
        assert chart(dash, "loss").spec.cursor is None


async def test_a_click_puts_the_cursor_into_all_charts(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        await pilot.click("#chart1", offset=(20, 4))
        await settled(pilot)
        cursors = {found.spec.cursor for found in charts(dash)}
        assert len(cursors) == 1
        assert None not in cursors


async def test_z_looks_closer_and_shift_z_from_further_away(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["z"])
        assert chart(dash, "loss").spec.window == (300.0, 600.0)
        await press(pilot, ["z"])
        assert chart(dash, "loss").spec.window == (450.0, 600.0)
        await press(pilot, ["Z", "Z"])
        assert chart(dash, "loss").spec.window == (0.0, 600.0)


async def test_f_shows_one_chart_alone_and_again_all(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["tab", "f"])
        assert [found.spec.title for found in charts(dash)] == ["loss"]
        await press(pilot, ["f"])
        assert len(charts(dash)) == 4


async def test_a_wide_screen_has_six_charts(made_runs: Path) -> None:
    async with opened(made_runs, size=frames.LARGE) as (dash, pilot):
        await ready(pilot)
        titles = [found.spec.title for found in charts(dash)]
        assert titles == [
            "top-1 error",
            "loss",
            "batch %",
            "images/s",
            "learning rate",
            "inactive channels",
        ]


async def test_l_shows_the_log_and_slash_searches_it(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["l"])
        assert "step 390" in text(dash), "the end of the log"
        await press(pilot, ["slash", *"step 120", "enter"])
        assert "1 of 40 contain 'step 120'" in text(dash)
        assert "step 390 loss" not in text(dash)
        await press(pilot, ["escape"])
        assert "contain" not in text(dash)
        await press(pilot, ["l"])
        assert "log.txt" not in text(dash)


async def test_w_shows_the_checkpoints_newest_first_with_last_best_and_deleted_ones(
    made_runs: Path,
) -> None:
    async with opened(made_runs, size=(110, 40)) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["w"])
        rows = [line for line in lines(dash) if "checkpoints/step-" in line]
        assert "600" in rows[0]
        assert "last best" in rows[0]
        assert "(deleted)" not in rows[0]
        assert "(deleted)" in rows[-1]


async def test_i_shows_target_alerts_machine_code_and_every_recipe_key(made_runs: Path) -> None:
    async with opened(made_runs, "ccc001", size=(140, 60)) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["i"])
        told = {row.cells[0][0]: row.cells[1] for row in dash.screen.drawer.listing.rows}
        assert told["alert (error)"] == "loss is NaN at step 230"
        assert told["target"].startswith("top1_error 9")
        assert told["optim.lr"] == "4.0"
        assert told["code"].startswith("0000")
        assert "promised 1.7 M" in told["MACs"]


async def test_m_lists_the_metrics_enter_shows_one_and_p_keeps_it_in_front(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["m", "slash", *"gate_l1", "enter", "enter"])
        assert [found.spec.title for found in charts(dash)] == ["gate L1"]
        await press(pilot, ["p", "escape", "escape", "m"])
        assert charts(dash)[0].spec.title == "gate L1"
        assert dash.store.view.metrics == ["step.gate_l1"]


async def test_g_opens_the_gates_and_d_the_comparison(made_runs: Path) -> None:
    async with frames.opened(made_runs, open=("aaa001", "bbb001")) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["g"])
        assert isinstance(dash.screen, GatesScreen)
        await press(pilot, ["escape", "d"])
        assert isinstance(dash.screen, CompareScreen)


async def test_d_alone_asks_for_another_run(made_runs: Path) -> None:
    async with opened(made_runs) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["d"])
        assert "mark another run" in text(dash)


async def test_a_live_run_draws_what_is_appended(tmp_path: Path) -> None:
    import os

    spec = synthetic.Spec(now_step=100, state="running", pid=os.getpid())
    run = synthetic.make(tmp_path, spec)
    async with opened(tmp_path, run.id) as (dash, pilot):
        await ready(pilot)
        synthetic.advance(run, spec, 250)
        await frames.until(pilot, lambda: chart(dash, "loss").spec.window[1] == 250)
        await frames.until(pilot, lambda: "step 250/600" in text(dash))


async def test_a_run_whose_folder_is_taken_away_says_so(runs: Path) -> None:
    import shutil

    async with opened(runs) as (dash, pilot):
        await ready(pilot)
        shutil.rmtree(one(runs, "aaa001"))
        await frames.until(pilot, lambda: "its folder is gone" in text(dash))
        await press(pilot, ["escape"])
        assert "7/7" in text(dash)


@pytest.mark.parametrize("size", [(20, 6), (40, 12), (80, 24), (220, 60), (300, 20)])
async def test_every_size_is_drawn_without_an_error(made_runs: Path, size: tuple[int, int]) -> None:
    async with opened(made_runs, size=size) as (dash, pilot):
        await ready(pilot)
        await press(pilot, ["l", "g", "escape", "escape"])
        assert len(lines(dash)) == size[1]
