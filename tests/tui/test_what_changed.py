"""What happens to runs and to their folder while the dashboard is open, and what an earlier
dashboard left, is said.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dgc.run.paths import RunDir
from dgcctl.core.runs.listing import read_run
from dgcctl.tui.screens.confirm_screen import Confirm
from dgcctl.tui.state.store import ROLES, bar_role, share_done
from dgcctl.tui.widgets.virtual_table import Listing
from tests.tui import frames, synthetic
from tests.tui.conftest import one
from tests.tui.frames import lines, press, text
from tests.tui.test_once import dash as command


async def test_a_folder_that_vanishes_is_said_to_be_gone(runs: Path) -> None:
    async with frames.opened(runs, (160, 30)) as (dash, pilot):
        runs.rename(runs.with_name("elsewhere"))
        await frames.until(pilot, lambda: f"folder {runs} is gone" in text(dash))
        runs.with_name("elsewhere").rename(runs)
        await frames.until(pilot, lambda: "is gone" not in text(dash) and "fff001" in text(dash))


async def test_what_is_said_of_no_rows_is_drawn_again(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        listing = dash.screen.query_one("#runs", Listing)
        listing.show([])
        for told in ("first this", "then that"):
            listing.empty = told
            listing.show([])
            await pilot.pause()
            assert told in text(dash)


async def test_an_empty_folder_that_vanishes_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    async with frames.opened(folder, (160, 30)) as (dash, pilot):
        assert f"no runs yet in {folder}" in text(dash)
        shutil.rmtree(folder)
        await frames.until(pilot, lambda: f"folder {folder} is gone" in text(dash))


@pytest.mark.parametrize(
    ("state", "step"), [("failed", 600), ("stopped", 300), ("running", 600), ("died", 600)]
)
def test_a_run_that_is_not_done_does_not_look_finished(
    tmp_path: Path, state: str, step: int
) -> None:
    spec = synthetic.Spec(
        state="running" if state == "died" else state, pid=os.getpid() if state == "running" else 0
    )
    run = synthetic.make(tmp_path, spec)
    status = read_run(RunDir(run.path)).status
    found = read_run(RunDir(run.path))
    assert found.state == state
    ended = type(found)(
        found.dir, type(status)(**{**vars(status), "step": step, "steps": 600}), found.state
    )
    assert share_done(ended) <= 0.99
    assert bar_role(ended) == ("bar" if state == "running" else ROLES[state])


def test_a_run_that_is_done_is_whole(tmp_path: Path) -> None:
    found = read_run(RunDir(synthetic.make(tmp_path, synthetic.Spec()).path))
    assert (found.state, share_done(found), bar_role(found)) == ("done", 1.0, "dim")


async def test_a_question_whose_run_has_ended_closes_and_says_so(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["s"])
        assert isinstance(dash.screen, Confirm)
        synthetic.set_status(RunDir(one(runs, "fff001")), synthetic.Spec(state="done"))
        await frames.until(pilot, lambda: not isinstance(dash.screen, Confirm))
        # it is said in a message of its own, which may come after the one that the run is done
        said = "only a running run can be asked to stop"
        await frames.until(pilot, lambda: said in frames.notified(dash))
        assert not (one(runs, "fff001") / "control").exists()


async def test_what_an_earlier_dashboard_left_is_said(runs: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with frames.opened(runs, (160, 30), state_dir=state) as (dash, pilot):
        assert "as last time" not in lines(dash)[0]
        await press(pilot, ["space", "o", "q"])
    async with frames.opened(runs, (160, 30), state_dir=state) as (dash, pilot):
        assert "1 marked, sorted by state (as last time)" in lines(dash)[0]
        await press(pilot, ["o"])
        assert "1 marked (as last time)" in lines(dash)[0]


@pytest.mark.parametrize("words", [("--once",), ()])
def test_a_folder_that_was_named_and_is_not_there_is_a_mistake(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = command(tmp_path / "rnus", *words)
    assert done.returncode == 2
    assert f"{tmp_path / 'rnus'}: no such folder (--runs-dir)" in done.stderr
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
