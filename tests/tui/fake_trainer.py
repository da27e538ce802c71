"""A process that writes a run as a trainer does, without training: `-m tests.tui.fake_trainer RUN
STEPS SECONDS`.

It obeys control/stop and control/checkpoint between steps, as the real one does.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from dgc.run.events import EventKind, EventWriter
from dgc.run.paths import RunDir
from dgc.run.status import Status, write_status
from tests.tui import synthetic
from tests.tui.synthetic import Spec


def main(folder: Path, steps: int, seconds: float) -> None:
    run, spec = (
        RunDir(folder),
        Spec(epochs=1, steps_per_epoch=steps, now_step=0, state="running", started=time.time()),
    )
    status = Status(state="running", steps=steps, epochs=1)
    write_status(run, status)
    writer = EventWriter(run)
    writer.append(
        EventKind.START, recipe=spec.recipe, world_size=1, steps=steps, epochs=1, resumed=False
    )
    for step in range(1, steps + 1):
        writer.append_lines(
            synthetic.step_lines(
                replace(spec, started=time.time() - step * spec.step_seconds), step
            )
        )
        status = replace(status, step=step, heartbeat=time.time())
        write_status(run, status)
        if (run.control / "stop").exists():
            (run.control / "stop").unlink()
            status = replace(status, state="stopped", reason="stopped on request", exit_code=75)
            break
        time.sleep(seconds)
    else:
        status = replace(status, state="done", exit_code=0)
    write_status(run, status)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
