"""Row 12: a worker that is killed, or raises on a sample."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from dgc.data import open_images, train_loader
from dgc.data.image_sets import ImageSet
from dgc.errors import DataError, ResourceError
from dgc.recipe.load import dump_recipe, find_recipe, load_recipe
from tests import image_folder
from tests.waiting import GUARD, wait_for

ROOT = Path(__file__).resolve().parents[2]
NORM = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


class Odd(ImageSet):
    """Images that do something when sample 17 is asked for."""

    def __init__(self, act):
        self.labels = np.arange(40, dtype=np.int64)
        self.act = act

    def pixels(self, seed, epoch, indices_B):
        if 17 in indices_B:
            self.act()
        return np.zeros((len(indices_B), 8, 8, 3), np.uint8)

    def name_of(self, index):
        return f"odd[{index}]"


def fail():
    raise ValueError("no such\ncolour")


def step_of(loader, epoch):
    """The step at which sample 17 comes up."""
    return next(
        epoch * len(loader) + task.step
        for task in loader.sampler.tasks(epoch)
        if 17 in task.indices
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_that_raises_is_one_line_with_the_place(workers, fault_table):
    loader = train_loader(Odd(fail), seed=0, batch_size=4, workers=workers, **NORM)
    with (
        fault_table.case(12, "worker raises on sample 17: one line, no traceback") as case,
        case.run(),
    ):
        with pytest.raises(DataError) as caught:
            list(loader.epoch(3))
        loader.close()
        assert caught.value.exit_code == 3
        assert re.fullmatch(
            r"ValueError: no such colour \(fail, line \d+; the batch begins with odd\[\d+\]\) "
            rf"\(at epoch 3 step {step_of(loader, 3)}\)",
            str(caught.value),
        )


def exhausted():
    raise MemoryError


@pytest.mark.parametrize("workers", [0, 2])
def test_a_worker_without_memory(workers, fault_table):
    loader = train_loader(Odd(exhausted), seed=0, batch_size=4, workers=workers, **NORM)
    with fault_table.case(12, "worker out of memory: exit 7") as case, case.run():
        with pytest.raises(
            ResourceError,
            match=r"^out of memory while making a batch: lower .* \(at epoch 0 step \d+\)$",
        ):
            list(loader.epoch(0))
        loader.close()


DEATHS = {
    signal.SIGKILL: "signal 9, SIGKILL",
    signal.SIGBUS: (
        "signal 7, likely shared memory is full: give /dev/shm more, or set data.workers=0"
    ),
    signal.SIGSEGV: "signal 11, a crash in native code",
    signal.SIGABRT: "signal 6, SIGABRT",
}


@pytest.mark.parametrize("number", DEATHS, ids=lambda number: number.name)
def test_a_worker_that_dies_is_named_with_its_signal_and_the_place(number, fault_table):
    def die():
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)

    others = set(multiprocessing.active_children())  # of a test before that failed
    loader = train_loader(Odd(die), seed=0, batch_size=4, workers=2, **NORM)
    with (
        fault_table.case(12, "worker dies: which one, signal, epoch, step; no other left") as case,
        case.run(),
    ):
        with pytest.raises(ResourceError) as caught:
            list(loader.epoch(3))
        assert caught.value.exit_code == 7
        found = re.fullmatch(r"worker [01] died \((.*)\) at epoch 3 step (\d+)", str(caught.value))
        assert found, str(caught.value)
        assert found[1] == DEATHS[number]
        assert 30 <= int(found[2]) <= step_of(loader, 3)
        loader.close()
        assert not set(multiprocessing.active_children()) - others


def test_a_worker_killed_from_outside_between_two_batches(fault_table):
    images = open_images(name="fashion_mnist", limit_train=400)
    loader = train_loader(images.train, seed=0, batch_size=4, workers=2, **NORM)
    with (
        fault_table.case(12, "worker dies: which one, signal, epoch, step; no other left") as case,
        case.run(),
    ):
        stream = loader.epoch(0)
        next(stream)
        number, victim = 1, sorted(child.pid for child in multiprocessing.active_children())[1]
        os.kill(victim, signal.SIGKILL)
        wait_for(
            lambda: psutil.Process(victim).status() == psutil.STATUS_ZOMBIE,
            "the end of the worker",
            by=None,
        )
        time.sleep(0.1)  # PyTorch alone would raise here, in the middle of whatever is done
        with pytest.raises(
            ResourceError, match=rf"^worker {number} died \(signal 9, SIGKILL.* step 1$"
        ):
            next(stream)
        loader.close()


def test_other_errors_are_not_explained_away():
    images = open_images(name="fashion_mnist", limit_train=8)
    assert (
        train_loader(images.train, seed=0, batch_size=4, **NORM).explain(RuntimeError("CUDA error"))
        is None
    )


@pytest.fixture
def run(tmp_path):
    """A run on a generated image folder, two workers, checkpoints often."""
    folder = image_folder.make(tmp_path / "images", classes=4, train=160, val=2)
    overrides = [
        *("data.name=image_folder", f"data.dir={folder}", "data.workers=2", "model.num_classes=4"),
        *("model.stages=[1,1]", "model.growth=[8,8]", "train.batch_size=4", "train.epochs=50"),
        *("checkpoint.every_steps=5", "train.log_every=1", "train.threads=1", "expect=[]"),
    ]
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(dump_recipe(load_recipe(find_recipe("demo"), overrides)))
    return run


def test_training_whose_worker_is_killed_ends_with_7_and_names_the_checkpoint(run, fault_table):
    with (
        fault_table.case(
            12, "training whose worker is killed: exit 7, last checkpoint named"
        ) as case,
        case.run(),
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "dgc.train", "--run-dir", run],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        saved = run / "checkpoints" / "step-000005"
        wait_for(saved.exists, "the first checkpoint", by=process)
        children = [child.pid for child in psutil.Process(process.pid).children()]
        os.kill(children[0], signal.SIGKILL)
        _, said = process.communicate(timeout=GUARD)
        assert process.returncode == 7, said
        (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert re.match(r"error: worker \d died \(signal 9, SIGKILL.*\) at epoch 0 step \d+", line)
        assert re.search(r"step-0*\d+", line), line
