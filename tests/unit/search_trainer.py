"""The trainer of the tests of searches: as fake_trainer, with an evaluation a step whose error grows
with the learning rate. Of the sixth trial on, one whose rate is 0.2 waits to be told to stop.
"""

from __future__ import annotations

import sys
import time

from dgc.recipe.load import Recipe
from dgc.run.checkpoint_store import commit, point_to
from dgc.run.events import EventKind, EventWriter
from dgc.run.paths import RunDir
from dgc.run.status import Status, write_status
from tests.unit import fake_trainer
from tests.waiting import GUARD

BAD = 0.2
PRUNED_FROM = 5  # Optuna's median pruner lets the first five go on


def train(run: RunDir, recipe: Recipe, log: EventWriter, status: Status, first: int) -> None:
    guard = time.monotonic() + GUARD
    index = int(run.id.rpartition("-")[2][:3])
    for step in range(first + 1, fake_trainer.STEPS + 1):
        error = 10 + 100 * recipe.optim.lr - step / 10
        point_to(run.last, commit(run, step, {"model.safetensors": repr(error).encode()}))
        figures = {"top1_error": error, "top5_error": error / 4, "loss": error}
        log.append(EventKind.EVAL, epoch=step, step=step, split="val", samples=10, **figures)
        fake_trainer.finish(run, error, error)
        status.step, status.heartbeat = step, time.time()
        write_status(run, status)
        while step == 2 and recipe.optim.lr == BAD and index >= PRUNED_FROM:
            if (run.control / "stop").exists() or time.monotonic() > guard:
                raise fake_trainer.StopError
            time.sleep(0.01)


if __name__ == "__main__":
    fake_trainer.train = train
    sys.exit(fake_trainer.main())
