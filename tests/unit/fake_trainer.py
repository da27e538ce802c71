"""A trainer without torch, for tests of what stands around it: same command line, same run
directory, in milliseconds.

    python fake_trainer.py --run-dir RUN [--resume]

The environment asks for trouble: FAKE_HOLD=text:step stays after that step, where the text stands
in the recipe, while RUN/held is there; FAKE_FAIL=text that stands in the recipe, FAKE_KICK_STEP
changes the loss from that step on by one unit in the last place.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import random
import signal
import sys
import time
from pathlib import Path

from dgc.recipe.load import Recipe, load_recipe
from dgc.run.checkpoint_store import commit, newest_valid, point_to
from dgc.run.events import EventKind, EventWriter
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, write_status

STEPS = 6
MACS = {"dense": 1000, "promised": 400, "executed": 420}


class StopError(Exception):
    """A signal asked for the end."""


def losses(recipe: Recipe) -> list[float]:
    """Numbers that depend on the recipe and the seed alone."""
    dice = random.Random(f"{recipe.digest()}{recipe.seed}")
    return [2.0 / (step + 1) + dice.random() / 100 for step in range(STEPS)]


def write_records(run: RunDir, recipe: Recipe) -> None:
    write_json(
        run.data,
        {"name": recipe.data.name, "digest": hashlib.sha256(b"data").hexdigest(), "train": 5000},
    )
    write_json(
        run.model, {"name": recipe.model.name, "parameters": 1234, "macs": MACS, "layers": []}
    )
    write_json(run.env, {"python": sys.version.split()[0], "torch": {"version": "0"}, "threads": 1})


def finish(run: RunDir, top1: float, loss: float) -> None:
    macs = {f"macs_{key}": value for key, value in MACS.items()}
    values = {
        "top1_error": top1,
        "top5_error": top1 / 4,
        "loss": loss,
        "epoch": 0,
        "parameters": 1234,
        **macs,
    }
    write_json(run.metrics, values)


def train(run: RunDir, recipe: Recipe, log: EventWriter, status: Status, first: int) -> None:
    kick = int(os.environ.get("FAKE_KICK_STEP", "0"))
    values = losses(recipe)
    for step in range(first + 1, STEPS + 1):
        loss = values[step - 1]
        if kick and step >= kick:
            loss = math.nextafter(loss, 9.0)
        log.append(
            EventKind.STEP,
            step=step,
            epoch=0,
            progress=(step - 1) / STEPS,
            lr=recipe.optim.lr,
            loss=loss,
            inactive=step,
        )
        point_to(run.last, commit(run, step, {"model.safetensors": repr(loss).encode()}))
        status.step, status.heartbeat = step, time.time()
        write_status(run, status)
        hold(run, step)
    top1 = 100 * loss
    log.append(
        EventKind.EVAL,
        epoch=0,
        step=STEPS,
        split="val",
        top1_error=top1,
        top5_error=top1 / 4,
        loss=loss,
        samples=10,
    )
    finish(run, top1, loss)


def hold(run: RunDir, step: int) -> None:
    """Stay at this step while the file `held` is there, if the environment asks for it; a signal
    ends that too.
    """
    text, _, at = os.environ.get("FAKE_HOLD", "").rpartition(":")
    if text and text in run.recipe.read_text() and step == int(at):
        held = run.file("held")
        held.touch()
        while held.exists():
            time.sleep(0.01)


def stop(number: int, frame: object) -> None:
    raise StopError(number)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    run = RunDir(options.run_dir)
    recipe = load_recipe(run.recipe)
    status = Status(state=State.RUNNING, steps=STEPS, epochs=1)
    write_status(run, status)
    run.checkpoints.mkdir(exist_ok=True)
    log = EventWriter(run)
    found = newest_valid(run) if options.resume else None
    first = found[0].step if found else 0
    status.step = first
    log.append(
        EventKind.RESUME if found else EventKind.START,
        step=first,
        exact=True,
        recipe=recipe.digest(),
        steps=STEPS,
    )
    write_records(run, recipe)
    refused = os.environ.get("FAKE_FAIL")
    code = 0
    try:
        if refused and refused in run.recipe.read_text():
            status.state, status.reason, code = State.FAILED, "asked to fail", 9
        else:
            train(run, recipe, log, status, first)
            status.state = State.DONE
    except StopError:
        status.state, status.reason, code = State.STOPPED, "stopped by a signal", 75
    status.exit_code = code
    log.append(EventKind.END, state=str(status.state), reason=status.reason, step=status.step)
    write_status(run, status)
    return code


if __name__ == "__main__":
    sys.exit(main())
