"""Manners: colours, keys, memory, the command palette, and silence while nothing changes."""

import asyncio
from pathlib import Path

import pytest
from textual.screen import Screen

from dgc.errors import UsageError
from dgcctl.tui import keys, palette
from dgcctl.tui.screens.help_screen import HelpScreen
from dgcctl.tui.state.view import View, ViewStore
from tests.tui import frames, synthetic
from tests.tui.frames import press, settled, text


def colours(dash) -> set[object]:
    """All foreground and background colours of the frame."""
    strips = dash.screen._compositor.render_strips()
    styles = [segment.style for strip in strips for segment in strip if segment.style]
    return {
        colour
        for style in styles
        for colour in (style.color, style.bgcolor)
        if colour and not colour.is_default
    }


async def test_t_goes_from_dark_to_light_to_no_colour(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        assert dash.theme == palette.DARK
        await press(pilot, ["t"])
        assert dash.theme == palette.LIGHT
        await press(pilot, ["t"])
        assert dash.theme == palette.PLAIN
        await press(pilot, ["t"])
        assert dash.theme == palette.DARK


@pytest.mark.parametrize("keys_pressed", [[], ["enter"], ["g"], ["n"], ["question_mark"], ["s"]])
async def test_without_colour_there_is_none_on_any_screen(
    made_runs: Path, keys_pressed: list[str]
) -> None:
    async with frames.opened(made_runs, theme=palette.PLAIN) as (dash, pilot):
        await press(pilot, keys_pressed)
        assert colours(dash) == set()


async def test_no_color_in_the_environment_means_no_colour(
    made_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with frames.opened(made_runs) as (dash, _):
        assert dash.theme == palette.PLAIN
        assert colours(dash) == set()


async def test_states_and_the_chosen_row_can_be_told_without_colour(made_runs: Path) -> None:
    async with frames.opened(made_runs, theme=palette.PLAIN) as (dash, _):
        words = {
            text.split()[0] for text in ("▶ running", "† died", "■ stopped", "✗ failed", "✓ done")
        }
        assert len(words) == 5
        strip = dash.screen._compositor.render_strips()[2]
        assert all(
            segment.style and segment.style.reverse for segment in strip if segment.text.strip()
        )


async def test_the_view_of_a_folder_is_remembered_and_another_folder_has_its_own(
    runs: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    async with frames.opened(runs, state_dir=state) as (_, pilot):
        await press(pilot, ["space", "p", "o", "v", "enter", "plus", "x", "y", "t", "w", "q"])
    async with frames.opened(runs, state_dir=state) as (dash, _):
        view = dash.store.view
        assert [run_id[-6:] for run_id in view.marks] == ["fff001"]
        assert (view.sort, view.grouped, view.smoothing, view.axis, view.log) == (
            "state",
            True,
            2,
            "epoch",
            True,
        )
        assert (view.theme, view.drawer) == (palette.LIGHT, "checkpoints")
        assert dash.theme == palette.LIGHT
    synthetic.make(tmp_path / "others", synthetic.Spec())
    async with frames.opened(tmp_path / "others", state_dir=state) as (dash, _):
        signs = dict.fromkeys(dash.store.runs, 0)
        assert dash.store.view == View(signs=signs)


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b'{"axis": "nonsense", "smoothing": 77, "marks": 3, "x": 1}', b"\xff"]
)
def test_a_damaged_memory_is_a_fresh_view(tmp_path: Path, damage: bytes) -> None:
    kept = ViewStore(tmp_path, tmp_path / "runs")
    kept.save(View(filter="x"))
    assert kept.load().filter == "x"
    assert kept.path is not None
    kept.path.write_bytes(damage)
    assert kept.load() == View()


async def test_keys_can_be_given_other_places(made_runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("help: f1\nquit: ctrl+x\n")
    async with frames.opened(made_runs, keys_file=file) as (dash, pilot):
        await press(pilot, ["question_mark"])
        assert not isinstance(dash.screen, HelpScreen)
        await press(pilot, ["f1"])
        assert isinstance(dash.screen, HelpScreen)
        assert any(row.cells[1] == ("f1", "accent") for row in dash.screen.query_one("#keys").rows)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("helpp: f1", "unknown key id helpp"),
        ("- a", "should map ids"),
        ("a: [", "no readable keys file"),
        ("help: 3", "should map"),
    ],
)
def test_a_keys_file_with_a_mistake_is_one_line(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(content)
    with pytest.raises(UsageError) as error:
        keys.load_keymap(file)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_every_key_of_a_screen_is_there_once() -> None:
    for table in keys.TABLES.values():
        pressed = [part for key in table for part in key.key.split(",")]
        assert len(pressed) == len(set(pressed))
        assert len({key.id for key in table}) == len(table)


def test_the_keys_that_the_conventions_name_are_these() -> None:
    named = {"?": "help", "q": "quit", "s": "stop", "c": "checkpoint", "e": "export", "t": "theme"}
    runs = {"/": "filter", "space": "mark", "p": "pin", "d": "diff", "l": "log", "g": "gates"}
    run = {
        "y": "logy",
        "x": "axis",
        "+ =": "smoother",
        "-": "rougher",
        "0": "raw",
        "l": "log",
        "g": "gates",
        "esc": "back",
    }
    for table, wanted in (
        (keys.EVERYWHERE + keys.ACTING, named),
        (keys.RUNS, runs),
        (keys.RUN, run),
    ):
        found = {keys.shown_key(key.key): key.id for key in table}
        assert wanted.items() <= found.items()


async def test_ctrl_p_finds_what_has_a_key(made_runs: Path) -> None:
    async with frames.opened(made_runs, frames.LARGE) as (dash, pilot):
        await press(pilot, ["enter"])
        await press(pilot, ["ctrl+p", *"Log y"])
        await pilot.pause(0.3)
        assert "Log y (y)" in text(dash)
        await press(pilot, ["enter", "enter"])
        await settled(pilot)
        assert dash.store.view.log


@pytest.mark.parametrize(
    "where", [[], ["enter"], ["g"], ["space", "space", "d"], ["n"], ["question_mark"]]
)
async def test_the_palette_has_each_key_of_a_screen_once(made_runs: Path, where: list[str]) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, where)
        titles = [command.title for command in dash.get_system_commands(dash.screen)]
        assert len(titles) == len(set(titles))
        assert len(titles) == len(dash.screen.own_keys) + len(keys.EVERYWHERE)
        assert "Export (e)" in titles
        assert ("Stop (s)" in titles) is (where in ([], ["enter"], ["g"]))


async def test_tab_goes_around_the_parts_of_a_screen(made_runs: Path) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["enter"])
        seen = []
        for _ in range(4):
            seen.append(dash.focused.id)
            await press(pilot, ["tab"])
        assert seen == ["chart0", "chart1", "chart2", "chart3"]


@pytest.mark.parametrize("keys_pressed", [[], ["enter", "l"], ["g"], ["n"]])
async def test_nothing_is_drawn_while_nothing_changes(
    made_runs: Path, keys_pressed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with frames.opened(made_runs) as (dash, pilot):
        await press(pilot, ["end", *keys_pressed])
        await pilot.pause(0.5)
        drawn: list[object] = []
        shown = dash._display
        monkeypatch.setattr(
            dash, "_display", lambda screen, what: (drawn.append(what), shown(screen, what))
        )
        await asyncio.sleep(1.5)
        assert drawn == []
        await pilot.press("t")
        await settled(pilot)
        assert drawn, "the counter counts"


def test_a_screen_of_ours_is_never_blocked_by_a_file() -> None:
    """No screen opens events.jsonl: that is the poller's, in a thread of its own."""
    folder = Path(__file__).parents[2] / "dgcctl" / "tui"
    for file in [*(folder / "screens").glob("*.py"), *(folder / "widgets").glob("*.py")]:
        assert "EventReader" not in file.read_text(), file
        assert "read_events" not in file.read_text(), file
    assert issubclass(HelpScreen, Screen)
