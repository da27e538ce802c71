"""Acts: stop, checkpoint, resume, start. Each is asked first; a read-only dashboard offers none."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import Input

import dgc.run
from dgc.errors import UsageError
from dgc.run.paths import RunDir
from dgc.run.process import process_start
from dgc.run.status import State, Status, inferred_state, read_status, write_status
from dgcctl.core.runs.listing import read_run
from dgcctl.tui import actions
from dgcctl.tui.app import DashApp
from dgcctl.tui.screens.confirm_screen import Confirm
from dgcctl.tui.screens.question import DEAF
from dgcctl.tui.screens.recipes_screen import Ask
from dgcctl.tui.screens.run_screen import RunScreen
from dgcctl.tui.widgets.keyline import KeyLine
from tests.tui import frames, synthetic
from tests.tui.conftest import one
from tests.tui.frames import lines, press, text
from tests.waiting import wait_for


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have been started."""
    found: list[list[str]] = []

    class Ended:
        def poll(self) -> None:
            return None

    def start(run: RunDir, command: list[str], *, detach: bool) -> Ended:
        assert detach, "training must outlive the dashboard"
        found.append(list(command))
        return Ended()

    monkeypatch.setattr(actions.launcher, "start_training", start)
    return found


@pytest.mark.parametrize(("key", "name"), [("s", "stop"), ("c", "checkpoint")])
async def test_s_and_c_ask_first_and_leave_a_request_in_the_control_folder(
    runs: Path, key: str, name: str
) -> None:
    request = one(runs, "fff001") / "control" / name
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, [key])
        assert isinstance(dash.screen, Confirm)
        assert not request.exists()
        await press(pilot, ["y"])
        assert request.exists()
        assert request.stat().st_size == 0
        assert f"asked to {name}" in text(dash)


@pytest.mark.parametrize("answer", ["y", "n", "escape", "enter", "left"])
async def test_a_question_takes_no_answer_before_it_has_been_seen(runs: Path, answer: str) -> None:
    request = one(runs, "fff001") / "control" / "stop"
    async with frames.opened(runs) as (dash, pilot):
        ticks = dash.options.tick
        frames.type_key(dash, "s")
        await frames.heard(pilot)
        ticks.advance(DEAF - 0.01)
        frames.type_key(dash, answer)
        await frames.heard(pilot)
        assert isinstance(dash.screen, Confirm)
        assert dash.focused.id == "no"
        await pilot.click("#yes")
        await frames.settled(pilot)
        assert isinstance(dash.screen, Confirm), "nor from the mouse"
        ticks.advance(DEAF + 0.01)
        frames.type_key(dash, "y")
        await frames.heard(pilot)
        await frames.until(pilot, request.exists)
        assert not isinstance(dash.screen, Confirm)


async def test_a_key_that_is_held_down_is_no_answer(runs: Path) -> None:
    """A held key comes again every 30 ms, far beyond the first moment of the question."""
    request = one(runs, "fff001") / "control" / "stop"
    async with frames.opened(runs) as (dash, pilot):
        ticks = dash.options.tick
        for key in ("s", *"y" * 40):
            frames.type_key(dash, key)
            await frames.heard(pilot)
            ticks.advance(0.03)
        assert isinstance(dash.screen, Confirm)
        assert not request.exists()
        assert "let go, then press it once" in " ".join(text(dash).replace("│", " ").split())
        ticks.advance(DEAF)
        frames.type_key(dash, "y")
        await frames.heard(pilot)
        await frames.until(pilot, request.exists)


async def test_a_run_is_not_started_by_an_enter_too_many(
    runs: Path, started: list[list[str]]
) -> None:
    async with frames.opened(runs) as (dash, pilot):
        for key in ("n", "enter", *"seed=5", "enter", "enter"):
            frames.type_key(dash, key)
        await frames.heard(pilot)
        assert isinstance(dash.screen, Ask)
        assert dash.screen.query_one(Input).value == "seed=5"
        assert not started
        await press(pilot, ["enter"])
        assert len(started) == 1


async def test_no_palette_opens_over_a_question_by_a_key_from_before_it(
    runs: Path, started: list[list[str]]
) -> None:
    async with frames.opened(runs) as (dash, pilot):
        for key in ("n", "enter", "ctrl+p", *"quit", "backspace", "enter"):
            frames.type_key(dash, key)
        await frames.heard(pilot)
        assert isinstance(dash.screen, Ask)
        assert dash.screen.query_one(Input).value == "qui"
        assert not started


async def test_a_run_that_ended_while_the_question_stood_gets_no_request(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["s"])
        synthetic.set_status(RunDir(one(runs, "fff001")), synthetic.Spec(state="done"))
        await frames.until(pilot, lambda: "✓ 5 done" in lines(dash)[0])
        await press(pilot, ["y"])
        assert "only a running run can be asked to stop" in frames.notified(dash)
        assert not (one(runs, "fff001") / "control").exists()


@pytest.mark.parametrize("answer", ["n", "escape", "enter"])
async def test_a_no_an_escape_and_a_careless_enter_change_nothing(runs: Path, answer: str) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["s", answer])
        assert not isinstance(dash.screen, Confirm)
        assert not (one(runs, "fff001") / "control").exists()


async def test_a_click_on_yes_agrees(runs: Path) -> None:
    async with frames.opened(runs) as (_, pilot):
        await press(pilot, ["s"])
        await pilot.click("#yes")
        await press(pilot, [])
        assert (one(runs, "fff001") / "control" / "stop").exists()


async def test_below_stand_the_acts_that_would_do_something_to_the_chosen_run_now(
    tmp_path: Path,
) -> None:
    spec = synthetic.Spec(now_step=100, state="running", pid=os.getpid())
    async with frames.opened(tmp_path / "runs", frames.LARGE) as (dash, pilot):
        assert not shown_acts(dash)
        run = synthetic.make(tmp_path / "runs", spec)
        # The line below is drawn a moment after the list.
        await frames.until(pilot, lambda: shown_acts(dash) == ["s Stop", "c Checkpoint"])
        synthetic.set_status(run, replace(spec, state="stopped"))
        await frames.until(pilot, lambda: "■ stopped" in text(dash))
        await frames.until(pilot, lambda: shown_acts(dash) == ["r Resume"])
        synthetic.set_status(run, replace(spec, state="done"))
        await frames.until(pilot, lambda: "✓ done" in text(dash))
        await frames.until(pilot, lambda: not shown_acts(dash))


def shown_acts(dash: DashApp) -> list[str]:
    return [act for act in ("s Stop", "c Checkpoint", "r Resume") if f" {act} " in lines(dash)[-1]]


async def test_a_click_on_a_key_below_presses_it(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await pilot.click(KeyLine, offset=(lines(dash)[-1].index("s Stop"), 0))
        await frames.until(pilot, lambda: isinstance(dash.screen, Confirm))


@pytest.mark.parametrize("where", [[], ["n"], ["question_mark"]])
async def test_an_act_where_no_run_is_chosen_says_so(tmp_path: Path, where: list[str]) -> None:
    async with frames.opened(tmp_path / "runs") as (dash, pilot):
        await press(pilot, [*where, "s"])
        assert not isinstance(dash.screen, Confirm)
        assert "no run is chosen here" in frames.notified(dash)


async def test_under_the_question_the_list_goes_on(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["s"])
        synthetic.make(runs, synthetic.Spec(suffix="new999", started=synthetic.T0 + 8000))
        await frames.until(pilot, lambda: "9/9" in lines(dash)[0])
        assert isinstance(dash.screen, Confirm)


async def test_a_run_that_is_done_cannot_be_stopped_and_the_reason_is_told(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["end", "s"])
        assert not isinstance(dash.screen, Confirm)
        assert "only a running run can be asked to stop" in frames.notified(dash)
        assert not (one(runs, "aaa001") / "control").exists()


async def test_r_resumes_a_stopped_run_in_a_process_of_its_own(
    runs: Path, started: list[list[str]]
) -> None:
    run = one(runs, "ddd001")
    async with frames.opened(runs) as (dash, pilot):
        dash.screen.listing.go(run.name)
        await press(pilot, ["r", "y"])
    assert [command[1:] for command in started] == [
        ["-m", "dgc.train", "--run-dir", str(run), "--resume"]
    ]


async def test_a_running_run_cannot_be_resumed(runs: Path, started: list[list[str]]) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["r"])
        assert not isinstance(dash.screen, Confirm)
        assert "can be resumed" in frames.notified(dash)
    assert started == []


async def test_enter_on_a_recipe_asks_for_changes_and_starts_a_run_that_is_opened(
    runs: Path, started: list[list[str]]
) -> None:
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        await press(pilot, ["n"])
        dash.screen.query_one("#names").go("demo")
        await press(pilot, ["enter"])
        assert isinstance(dash.screen, Ask)
        await press(pilot, [*"seed=7", "enter"])
        await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen))
        name = dash.screen.run_id
        # its status is written last
        await frames.until(pilot, lambda: dash.store.runs[name].state == "queued")
        assert dash.store.runs[name].recipe["seed"] == 7
    assert len(started) == 1


async def test_a_wrong_change_is_told_in_the_words_of_the_recipe_reader(
    runs: Path, started: list[list[str]]
) -> None:
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        await press(pilot, ["n"])
        dash.screen.query_one("#names").go("demo")
        await press(pilot, ["enter", *"train.epoch=3", "enter"])
        assert isinstance(dash.screen, Ask)  # what is typed next is no act
        assert "not started: " in text(dash)
        assert "did you mean" in text(dash)
        assert dash.screen.query_one(Input).value == "train.epoch=3"
        await press(pilot, ["q", "escape"])
        assert not isinstance(dash.screen, Ask)
        assert dash.return_code is None
    assert started == []


async def test_a_change_may_have_blanks_in_quotes(runs: Path, started: list[list[str]]) -> None:
    async with frames.opened(runs, frames.LARGE) as (dash, pilot):
        await press(pilot, ["n"])
        dash.screen.query_one("#names").go("demo")
        await press(pilot, ["enter", *'title="two words" seed=7', "enter"])
        await frames.until(pilot, lambda: isinstance(dash.screen, RunScreen))
        name = dash.screen.run_id
        await frames.until(pilot, lambda: dash.store.runs[name].state == "queued")
        assert dash.store.runs[name].recipe["title"] == "two words"
    assert len(started) == 1


async def test_readonly_hides_the_acts_and_their_keys_do_nothing(
    runs: Path, started: list[list[str]]
) -> None:
    async with frames.opened(runs, frames.LARGE, readonly=True) as (dash, pilot):
        frame = text(dash)
        for label in ("Stop", "Checkpoint", "Resume"):
            assert label not in frame
        await press(pilot, ["s", "c", "r", "n", "enter"])
        assert not isinstance(dash.screen, Confirm | Ask)
    assert started == []
    assert not (one(runs, "fff001") / "control").exists()


async def test_the_training_process_needs_nothing_of_the_dashboard_but_that_file(
    runs: Path,
) -> None:
    before = {path: path.read_bytes() for path in one(runs, "fff001").rglob("*") if path.is_file()}
    async with frames.opened(runs) as (_, pilot):
        await press(pilot, ["enter", "l", "k", "escape", "s", "y"])
    after = {path: path.read_bytes() for path in one(runs, "fff001").rglob("*") if path.is_file()}
    assert after.pop(one(runs, "fff001") / "control" / "stop") == b""
    assert after == before


def test_a_control_folder_that_cannot_be_written_is_one_line(runs: Path) -> None:
    run = one(runs, "fff001")
    (run / "control").write_text("in the way")
    with pytest.raises(UsageError, match=r"control/stop: cannot be written"):
        actions.request(read_run(RunDir(run)), "stop")


def test_a_trainer_that_fails_at_once_is_reaped_and_its_line_is_told(tmp_path: Path) -> None:
    run = synthetic.make(tmp_path, synthetic.Spec(state="stopped", now_step=100))
    (run.path / "recipe.yaml").write_text("name: [")
    trainers = actions.Trainers()
    trainers.resume(run)
    told: list[tuple[str, str]] = []
    wait_for(lambda: told or told.extend(trainers.reap()), "the end of the trainer", by=None)
    assert len(told) == 1
    assert told[0][0] == run.id
    assert "recipe.yaml" in told[0][1]
    assert trainers.reap() == []


def test_a_zombie_is_no_living_writer(tmp_path: Path) -> None:
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(hold, 1)
        os._exit(0)
    token = process_start(child)
    os.write(release, b".")
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    status = Status(state="running", pid=child, start_token=token)
    try:
        assert inferred_state(status) is State.DIED
    finally:
        os.waitpid(child, 0)


@pytest.mark.parametrize(("state", "key", "told"), [
    ("running", "r", "goes on with it"), ("stopped", "r", "goes on with it"),
    ("queued", "c", "its script alone saves checkpoints"),
])  # fmt: skip
async def test_a_script_alone_resumes_and_saves_its_run(
    tmp_path: Path, started: list[list[str]], state: str, key: str, told: str
) -> None:
    """A trainer would find no recipe there; a running one whose process is gone is said to have
    died.
    """
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        run.log(1, loss=1.0)
    write_status(run.dir, replace(read_status(run.dir), state=State(state), pid=0))
    async with frames.opened(tmp_path, frames.LARGE) as (dash, pilot):
        if state == "running":
            await press(pilot, ["enter"])
            assert "its script goes on with it, started again with resume=True" in text(dash)
            assert "r resumes" not in text(dash)
        assert "Resume" not in text(dash).splitlines()[-1]
        await press(pilot, [key])
        assert not isinstance(dash.screen, Confirm)
        assert told in " ".join(frames.notified(dash).split())
    assert not started
    assert not list(run.dir.control.iterdir())


async def test_a_script_is_said_to_hear_a_stop_where_it_looks_for_it(tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        async with frames.opened(tmp_path) as (dash, pilot):
            await press(pilot, ["s"])
            assert "Its script hears it where it looks for it" in text(dash)
            await press(pilot, ["y"])
        assert run.stopping
