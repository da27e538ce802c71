"""Gates, Compare, Recipes and Help, as a user tells them."""

from pathlib import Path

import dgc
from dgcctl.tui.screens.compare_screen import CompareScreen
from dgcctl.tui.screens.gates_screen import GatesScreen
from dgcctl.tui.screens.help_screen import HelpScreen
from dgcctl.tui.screens.recipes_screen import RecipesScreen
from dgcctl.tui.state import gate_maps
from dgcctl.tui.widgets.chart import Chart
from tests.tui import frames, synthetic
from tests.tui.conftest import one
from tests.tui.frames import lines, press, text


async def gates(pilot, dash) -> GatesScreen:
    await press(pilot, ["g"])
    await frames.until(pilot, lambda: "dense1" in text(dash) or "layer1" in text(dash))
    return dash.screen


async def test_the_gate_map_shows_each_layer_and_head_with_costs(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        await gates(pilot, dash)
        row = next(line for line in lines(dash) if "dense3.layer1.conv1" in line)
        for told in ("96", "63", " 34 ", "4.82 M", "415 k", "449 k", "+8%"):
            assert told in row, told


async def test_x_changes_the_figure_of_the_map(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        screen = await gates(pilot, dash)
        shown = []
        for _ in range(3):
            shown.append(
                (
                    lines(dash)[0].split("running")[1].split("evaluation")[0].strip(),
                    screen.listing.rows[0].cells[3][0].strip(),
                )
            )
            await press(pilot, ["x"])
        assert [name for name, _ in shown] == ["active share", "entropy", "most used"]
        assert len({cell for _, cell in shown}) == 3


def test_narrow_screens_leave_out_what_all_layers_share() -> None:
    names = [f"features.denseblock_{b}.denselayer_{n}.conv_1" for b in (1, 2) for n in (1, 2)]
    assert gate_maps.short_names(names) == [
        "block_1.layer_1",
        "block_1.layer_2",
        "block_2.layer_1",
        "block_2.layer_2",
    ]
    assert (
        gate_maps.short_names(["layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1"])[0]
        == "layer1.0.conv1"
    )
    assert gate_maps.short_names(["only.one"]) == ["only.one"]
    assert gate_maps.short_names(["a.b", "a.b"]) == ["a.b", "a.b"]


async def test_the_schedule_says_you_are_here(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await gates(pilot, dash)
        chart = dash.screen.query_one("#schedule")
        shown = [line[chart.region.x :] for line in text(dash).split("\n")]
        pointer = next(line for line in shown if "▲" in line)
        assert "you are here: 70% ▲" in pointer
        above = shown[shown.index(pointer) - 1]
        assert above[pointer.index("▲")] not in " ┄", "the cursor stands over it"


async def test_brackets_go_to_earlier_and_later_evaluations(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await gates(pilot, dash)
        await press(pilot, ["left_square_bracket", "left_square_bracket"])
        assert "evaluation 2/4  step 200" in lines(dash)[0]
        await press(pilot, ["right_square_bracket"])
        assert "evaluation 3/4  step 300" in lines(dash)[0]


async def test_arrows_choose_layer_and_head_and_its_channels_are_told(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await gates(pilot, dash)
        await press(pilot, ["down", "right", "right"])
        frame = text(dash)
        assert "dense1.layer2.conv1" in frame
        assert "head 2: active 33.3%" in frame
        assert "▸head 2" in frame
        expected = synthetic.gate_map(synthetic.Spec(seed=5), 4)["layers"][1]["heads"][2]
        assert f"ch {expected['most'][0][0]:<5}100.0%" in frame
        assert f"ch {expected['least'][3][0]:<5}  3.0%" in frame


async def test_a_run_of_a_script_has_no_gate_maps_and_no_schedule(tmp_path: Path) -> None:
    with dgc.run.start("own", {"lr": 0.1}, runs_dir=tmp_path) as run:
        run.log(1, loss=1.0)
    async with frames.opened(tmp_path) as (dash, pilot):
        await press(pilot, ["g"])
        await frames.until(pilot, lambda: "a script's run has no gate maps" in text(dash))
        assert "channels left out" not in text(dash)
        assert "you are here" not in text(dash)


async def test_a_dense_network_has_no_gates_and_says_so(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        dash.screen.listing.go(one(made_runs, "bbb001").name)
        await press(pilot, ["g"])
        assert "a dense network has no gates" in text(dash)


async def test_a_damaged_gate_map_is_named_and_nothing_breaks(runs: Path) -> None:
    (one(runs, "fff001") / "gates" / "epoch-0004.json").write_text(
        '{"epoch": 4, "step": 1, "layers": [{}]}'
    )
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["g"])
        await frames.until(pilot, lambda: "epoch-0004.json: not a gate map" in text(dash))
        await press(pilot, ["left_square_bracket"])
        assert "dense1.layer1.conv1" in text(dash)


# --- Compare --------------------------------------------------------------------------------------


async def compared(pilot, dash, runs: Path, *endings: str) -> CompareScreen:
    dash.store.view.marks[:] = [one(runs, ending).name for ending in endings]
    await press(pilot, ["d"])
    await frames.until(pilot, lambda: getattr(dash.screen, "_found", None) is not None)
    await press(pilot, [])
    return dash.screen


async def test_seeds_are_compared_with_mean_spread_and_n(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        await compared(pilot, dash, made_runs, "aaa001", "aaa002", "aaa003", "bbb001")
        frame = text(dash)
        assert "model.form=dgc  n=3" in frame
        assert "8.41 ± 0.23" in frame
        assert "model.form=dense  n=1" in frame
        assert "! code differs within the group" in frame


async def test_x_shows_what_differs_in_recipe_code_and_result(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        screen = await compared(pilot, dash, made_runs, "aaa001", "bbb001", "aaa003")
        await press(pilot, ["x"])
        rows = {
            row.key: [cell if isinstance(cell, str) else cell[0] for cell in row.cells]
            for row in screen.query_one("#table").rows
        }
        assert rows["recipe.model.form"][2:] == ["dgc", "dense", "dgc"]
        assert rows["code.commit"][4].endswith("2")
        assert "result.macs_executed" in rows
        assert "recipe.optim.lr" not in rows


async def test_the_scatter_sets_error_against_macs_and_against_measured_speed(
    made_runs: Path,
) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        screen = await compared(pilot, dash, made_runs, "aaa001", "bbb001")
        await press(pilot, ["x", "x"])
        cost, speed = (chart.spec for chart in screen.query(Chart))
        assert [trace.x[0] for trace in cost.traces] == [1.9, 4.1]
        assert [round(float(trace.x[0]), -1) for trace in speed.traces] == [410.0, 530.0]
        assert text(dash).count("◆A") == 2
        assert text(dash).count("◆D") == 2


async def test_a_damaged_run_is_left_out_of_the_comparison_and_named(runs: Path) -> None:
    (one(runs, "aaa001") / "recipe.yaml").write_text("name: [")
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        await compared(pilot, dash, runs, "aaa001", "bbb001")
        assert "compare 1 runs" in text(dash)
        assert any("aaa001:" in line for line in lines(dash))


# --- Recipes and help -----------------------------------------------------------------------------


async def test_n_shows_each_recipe_with_the_reason_for_every_value(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        await press(pilot, ["n"])
        assert isinstance(dash.screen, RecipesScreen)
        dash.screen.query_one("#names").go("demo")
        await press(pilot, [])
        frame = text(dash)
        assert "model.gate_factor" in frame
        assert "paper: pruning rate 0.75" in frame


async def test_question_mark_lists_every_key_and_sign(made_runs: Path) -> None:
    async with frames.opened(made_runs, (120, 120)) as (dash, pilot):
        await press(pilot, ["question_mark"])
        assert isinstance(dash.screen, HelpScreen)
        frame = text(dash)
        for told in (
            "ctrl+p",
            "smooth more",
            "logarithmic vertical axis",
            "† died",
            "lay it over all charts",
            "[",
            "keep this run at the top",
        ):
            assert told in frame, told
        await press(pilot, ["escape"])
        assert "8/8" in text(dash)


async def test_every_help_text_is_whole_at_80_columns(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["question_mark"])
        told = []
        for _ in range(8):
            told.append(text(dash))
            await press(pilot, ["pagedown"])
        assert "its process is gone" in told[-1], "the end of the list"
        assert "…" not in "".join(told).replace("… queued", "")


async def test_the_whole_reason_of_a_value_is_told_below_where_its_column_is_narrow(
    made_runs: Path,
) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["n", "tab", *["down"] * 6])
        assert "model.heads 4: paper: 4 heads" in lines(dash)[-2]


async def test_a_recipe_with_a_mistake_says_so_and_is_not_started(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        await press(pilot, ["n", "end"])
        assert "mistaken.yaml:37: train.epochs is missing" in lines(dash)[-3]
        await press(pilot, ["enter", "enter"])
        refused = "not started: "
        assert refused in text(dash)
        assert "train.epochs is missing" in text(dash).split(refused)[1]
