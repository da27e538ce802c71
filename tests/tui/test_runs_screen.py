"""The Runs screen, as a user tells it."""

from pathlib import Path

import dgc
from dgcctl.tui.screens.compare_screen import CompareScreen
from dgcctl.tui.screens.gates_screen import GatesScreen
from dgcctl.tui.screens.run_screen import RunScreen
from tests.tui import frames, synthetic
from tests.tui.frames import lines, press, settled, text


async def test_i_see_every_run_with_its_state_in_words_and_signs(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, _):
        frame = text(dash)
        for state in ("▶ running", "† died", "■ stopped", "✗ failed", "✓ done"):
            assert state in frame
        assert "8/8" in frame
        assert " 70%" in frame
    async with frames.opened(made_runs, (100, 24)) as (dash, _):
        assert "4/6" in text(dash)


async def test_the_newest_run_stands_first_and_has_the_cursor(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, _):
        assert "fff001" in lines(dash)[2]
        assert dash.screen.subject().endswith("fff001")


async def test_slash_filters_with_the_language_of_runs_ls(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["slash", *"lr>1", "enter"])
        frame = text(dash)
        assert "1/8" in frame
        assert "demo_hot" in frame
        assert "demo_dense" not in frame


async def test_a_filter_with_a_mistake_says_so_and_hides_nothing(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["slash", *"stat=done", "enter"])
        assert "did you mean" in lines(dash)[0]
        assert "8/8" in lines(dash)[0]


async def test_escape_drops_the_filter(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["slash", *"state=failed", "enter"])
        assert "1/8" in lines(dash)[0]
        await press(pilot, ["escape"])
        assert "8/8" in lines(dash)[0]


async def test_space_marks_a_run_and_goes_to_the_next(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["space"])
        assert lines(dash)[2].startswith("●")
        assert dash.screen.subject().endswith("eee001")
        await press(pilot, ["up", "space"])
        assert not lines(dash)[2].startswith("●")


async def test_p_pins_a_run_to_the_top(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["end", "p"])
        assert "aaa001" in lines(dash)[2]
        assert "▴" in lines(dash)[2]


async def test_v_groups_by_seed_with_mean_spread_and_n(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        await press(pilot, ["v"])
        frame = text(dash)
        assert "8.41 ± 0.23 n=3  demo_fashion" in frame
        assert "seeds 0-5" in frame


async def test_a_group_says_what_sets_it_apart_and_a_script_need_not_evaluate(
    tmp_path: Path,
) -> None:
    for lr in (0.3, 1.0):
        for seed in (0, 1):
            with dgc.run.start("own", {"lr": lr, "seed": seed}, runs_dir=tmp_path) as run:
                run.log(1, loss=1.0)
    async with frames.opened(tmp_path, frames.LARGE) as (dash, pilot):
        await press(pilot, ["v"])
        frame = text(dash)
        assert "2 done  own  lr=0.3" in frame
        assert "2 done  own  lr=1" in frame
        assert "none done" not in frame
        assert "100%" in frame


async def test_who_has_no_value_stands_last_whichever_way_is_sorted(runs: Path) -> None:
    with dgc.run.start("own", runs_dir=runs) as run:
        run.log(1, loss=1.0)
    async with frames.opened(runs) as (dash, _):
        dash.store.view.sort = "error"
        for dash.store.view.reverse in (False, True):
            found = [dash.store.best(run) for run in dash.store.shown().runs]
            known = [value for value in found if value is not None]
            assert None in found
            assert found == [*known, *[None] * found.count(None)]
            assert known == sorted(known, reverse=dash.store.view.reverse)


async def test_o_sorts_by_one_column_after_the_other(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        first = []
        for _ in range(7):
            await press(pilot, ["o"])
            first.append(dash.store.shown().runs[0].id[-6:])
        by_state, by_recipe, by_error, by_progress, by_lr, by_seed, by_speed = first
        assert (by_state, by_recipe, by_error, by_progress) == (
            "fff001",
            "bbb001",
            "aaa001",
            "bbb001",
        )
        assert (by_lr, by_seed, by_speed) == ("fff001", "ccc001", "bbb001")
        await press(pilot, ["o"])
        assert dash.store.view.sort == "age"


async def test_enter_opens_a_run_and_escape_comes_back(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["enter"])
        assert isinstance(dash.screen, RunScreen)
        await press(pilot, ["escape"])
        assert "8/8" in text(dash)


async def test_a_click_chooses_a_run_and_a_second_click_opens_it(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await pilot.click("#runs", offset=(20, 4))
        await settled(pilot)
        assert dash.screen.subject().endswith("ccc001")
        await pilot.click("#runs", offset=(20, 4))
        await settled(pilot)
        assert isinstance(dash.screen, RunScreen)
        assert dash.screen.run_id.endswith("ccc001")


async def test_d_compares_the_marked_runs_and_asks_for_marks_where_there_are_none(
    made_runs: Path,
) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["d"])
        assert not isinstance(dash.screen, CompareScreen)
        assert "mark two or more runs" in text(dash)
        await press(pilot, ["space", "space", "d"])
        assert isinstance(dash.screen, CompareScreen)


async def test_g_opens_the_gates_of_the_chosen_run(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["g"])
        assert isinstance(dash.screen, GatesScreen)


async def test_l_opens_the_run_at_its_log(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["l"])
        assert isinstance(dash.screen, RunScreen)
        assert "log.txt" in text(dash)


async def test_the_run_under_the_cursor_is_told_with_its_reason(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["down", "down", "down"])
        assert "loss is NaN at step 230" in text(dash)


async def test_a_large_screen_shows_the_curve_of_the_run_under_the_cursor(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        await press(pilot, ["down"])
        assert "loss  G" in text(dash)
        assert "step 270" in text(dash)


async def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    async with frames.opened(tmp_path / "runs") as (dash, _):
        assert "dgcctl train demo" in text(dash)


async def test_a_new_run_appears_by_itself(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        synthetic.make(
            runs,
            synthetic.Spec(
                suffix="new999", started=synthetic.T0 + 8000, now_step=10, state="stopped"
            ),
        )
        await frames.until(pilot, lambda: "new999" in text(dash))


async def test_an_unreadable_run_is_listed_and_explained(runs: Path) -> None:
    run = next(runs.iterdir())
    (run / "status.json").write_text('{"schema_version": 99}')
    async with frames.opened(runs) as (dash, pilot):
        assert "? unreadable" in text(dash)
        dash.screen.listing.go(run.name)
        await settled(pilot)
        assert "schema version 99 is newer" in text(dash)
