"""Finished runs in a moment, for tests: the fake trainer, called in this process."""

from __future__ import annotations

from pathlib import Path

from dgc.recipe.load import dump_recipe, find_recipe, load_recipe
from dgc.run.events import EventKind, EventWriter
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, write_status
from tests.unit import fake_trainer


def make_run(
    path: Path, *overrides: str, recipe: str = "demo", state: State = State.DONE
) -> RunDir:
    """A run directory with every record, computed from the recipe and its seed alone."""
    run = RunDir(path)
    run.checkpoints.mkdir(parents=True)
    checked = load_recipe(find_recipe(recipe), overrides)
    run.recipe.write_text(dump_recipe(checked), encoding="utf-8")
    status = Status(
        state=State.RUNNING,
        steps=fake_trainer.STEPS,
        epochs=1,
        host="there",
        started=1e9,
        heartbeat=1e9,
    )
    log = EventWriter(run)
    log.append(
        EventKind.START,
        recipe=checked.digest(),
        world_size=1,
        steps=fake_trainer.STEPS,
        epochs=1,
        resumed=False,
    )
    fake_trainer.write_records(run, checked)
    write_json(run.git, {"commit": "1" * 40, "patch_sha256": None, "untracked": {}})
    fake_trainer.train(run, checked, log, status, 0)
    status.state = state
    log.append(EventKind.END, state=str(state), reason="", step=fake_trainer.STEPS)
    write_status(run, status)
    log.close()
    return run
