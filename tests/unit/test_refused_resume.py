"""A resume that is refused before it began leaves the run as it was; a first start that fails says
so.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dgc.errors import DataError, DgcError, IntegrityError, RecipeError, ResourceError
from dgc.recipe.load import load_recipe, recipes_dir
from dgc.run.events import read_events
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, read_status, write_status
from dgc.train.main import recorded
from dgc.train.ranks import Ranks

ALONE = Ranks(0, 1, 0, torch.device("cpu"))
REFUSALS = (
    DataError("no data"),
    IntegrityError("no whole checkpoint"),
    RecipeError("a"),
    ResourceError("full"),
)


def refuse(run: RunDir, error: DgcError, *, begun: bool = False) -> Status:
    recipe = load_recipe(recipes_dir() / "demo.yaml")

    def start() -> None:
        with recorded(run, ALONE, recipe) as recorder:
            recorder.begun = begun
            raise error

    with pytest.raises(type(error)):
        start()
    return read_status(run)


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_refused_resume_changes_nothing(tmp_path: Path, error: DgcError) -> None:
    run = RunDir(tmp_path)
    write_status(
        run,
        Status(state=State.STOPPED, reason="stopped", exit_code=130, step=40, pid=1, host="there"),
    )
    before = run.status.read_bytes()
    refuse(run, error)
    assert run.status.read_bytes() == before
    assert read_events(run) == []


def test_what_fails_after_the_run_was_taken_up_has_failed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_status(run, Status(state=State.STOPPED, reason="stopped", step=40))
    assert refuse(run, DataError("lost"), begun=True).state == State.FAILED


def test_a_first_start_that_is_refused_has_failed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_status(run, Status(state=State.QUEUED))
    status = refuse(run, DataError("no data"))
    assert (status.state, status.reason, status.exit_code) == (State.FAILED, "no data", 3)
