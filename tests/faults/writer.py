"""A checkpoint writer without torch, to be killed: writes checkpoints 1, 2, 3, ... as a training
would.

    python -m tests.faults.writer RUN [LAST]

Prints a line when it starts, and one for each checkpoint that is committed (pointer included).
"""

import hashlib
import sys
from pathlib import Path

from dgc.run import checkpoint_store
from dgc.run.files import clear_leftovers
from dgc.run.paths import RunDir

KEEP_LAST = 2


def content(step: int) -> dict[str, bytes]:
    """The files of a step; their bytes follow from the step, so that a reader can tell whether they
    are whole.
    """
    seed = hashlib.sha256(str(step).encode()).digest()
    return {
        "model.safetensors": seed * 2000,
        "optim.safetensors": seed[::-1] * 2000,
        "state.json": b'{"step": %d}' % step,
    }


def write(run: RunDir, step: int) -> None:
    written = checkpoint_store.commit(run, step, content(step))
    checkpoint_store.point_to(run.last, written)
    if step % 5 == 0:
        checkpoint_store.point_to(run.best, written)
    checkpoint_store.purge(run, KEEP_LAST, {step - step % 5})


def main() -> None:
    run = RunDir(Path(sys.argv[1]))
    last = int(sys.argv[2]) if len(sys.argv) > 2 else 1 << 30
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    for folder in (run.path, run.checkpoints):
        clear_leftovers(folder)
    newest = checkpoint_store.newest_valid(run)
    step = newest[0].step if newest else 0
    checkpoint_store.repair_pointer(run, run.last, step or None)
    checkpoint_store.repair_pointer(run, run.best, step - step % 5 or None)
    print("start", step, flush=True)
    while step < last:
        step += 1
        write(run, step)
        print("committed", step, flush=True)


if __name__ == "__main__":
    main()
