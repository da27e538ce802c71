"""Loaders: the same batches for any number of workers and ranks, from any place in an epoch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dgc.data import eval_loader, open_images, train_loader
from dgc.data.sampler import EvalSampler, TrainSampler
from tests import image_folder
from tests.waiting import GUARD, wait_for

ROOT = Path(__file__).resolve().parents[2]
NORM = {"mean": (0.49, 0.48, 0.45), "std": (0.25, 0.24, 0.26)}


@pytest.fixture(scope="module")
def fashion():
    return open_images(
        name="fashion_mnist", augment="crop_flip", crop_padding=4, limit_train=200, limit_val=70
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return image_folder.make(tmp_path_factory.mktemp("images"))


def folder_images(folder, augment="resized_crop_flip"):
    return open_images(name="image_folder", dir=folder, augment=augment, image_size=32, resize=36)


def images_of(request, kind):
    return (
        request.getfixturevalue("fashion")
        if kind == "fashion"
        else folder_images(request.getfixturevalue("folder"))
    )


def batches(loader, epoch=0, start=0):
    try:
        return [(batch.images, batch.labels, batch.indices) for batch in loader.epoch(epoch, start)]
    finally:
        loader.close()


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a, b)
        for one, two in zip(left, right, strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("kind", ["fashion", "folder"])
def test_workers_and_the_place_of_the_start_change_nothing(request, kind):
    images = images_of(request, kind)
    options = {"seed": 7, "batch_size": 7, **NORM}
    expected = batches(train_loader(images.train, **options), epoch=3)
    for workers, start in ((1, 0), (3, 2)):
        got = batches(train_loader(images.train, workers=workers, **options), epoch=3, start=start)
        assert same(got, expected[start:]), (workers, start)
    assert not same(expected, batches(train_loader(images.train, **options), epoch=4))
    assert not same(
        expected, batches(train_loader(images.train, **{**options, "seed": 8}), epoch=3)
    )


@pytest.mark.parametrize("kind", ["fashion", "folder"])
def test_a_batch_is_what_its_samples_are_one_by_one(request, kind):
    images = images_of(request, kind).train
    indices = np.array([5, 0, 17, 5, 23])
    whole = images.pixels(3, 2, indices)
    one_by_one = np.concatenate(
        [images.pixels(3, 2, indices[place : place + 1]) for place in range(len(indices))]
    )
    assert np.array_equal(whole, one_by_one)
    assert np.array_equal(whole[0], whole[3])


def test_augmentation_differs_between_samples_and_epochs(fashion):
    first, second = (fashion.train.pixels(0, epoch, np.arange(50)) for epoch in (0, 1))
    assert sum(np.array_equal(a, b) for a, b in zip(first, second, strict=True)) < 5


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_global_batch_is_the_same_for_any_number_of_ranks(fashion, world):
    options = {"seed": 1, "batch_size": 45, **NORM}
    expected = batches(train_loader(fashion.train, **options))
    ranks = [
        batches(train_loader(fashion.train, rank=rank, world_size=world, **options))
        for rank in range(world)
    ]
    joined = [
        tuple(torch.cat(parts) for parts in zip(*shares, strict=True))
        for shares in zip(*ranks, strict=True)
    ]
    assert same(joined, expected)
    assert max(len(share[1]) for share in ranks[0]) <= -(-45 // world)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("batch", [1, 16, 50, 1000])
def test_evaluation_sees_each_sample_once_in_chunks_that_do_not_change(fashion, world, batch):
    """A rank has every world-th 64 samples, whatever it loads at once."""
    whole = batches(eval_loader(fashion.val, batch_size=70, **NORM))[0]
    for rank in range(world):
        mine = torch.arange(70)[torch.arange(70) // 64 % world == rank]
        found = batches(
            eval_loader(fashion.val, batch_size=batch, rank=rank, world_size=world, **NORM)
        )
        assert all(len(part[1]) <= batch for part in found)
        joined = tuple(torch.cat(parts) for parts in zip(*found, strict=True))
        assert not len(mine) or same([joined], [tuple(part[mine] for part in whole)])
        assert sum(len(part[1]) for part in found) == len(mine)


@pytest.mark.parametrize(
    ("count", "batch", "world", "accumulate", "sizes"),
    [
        (100, 32, 1, 1, [32, 32, 32, 4]),
        (96, 32, 1, 1, [32, 32, 32]),
        (104, 32, 4, 1, [32, 32, 32, 8]),
        (100, 32, 4, 1, [32, 32, 32]),  # 4 samples are one for each of 4 ranks
        (100, 32, 4, 2, [32, 32, 32]),
        (98, 32, 1, 1, [32, 32, 32, 2]),
        (97, 32, 1, 1, [32, 32, 32]),  # batch normalisation cannot use a batch of one image
        (5, 32, 1, 1, [5]),
    ],
)
def test_the_last_batch_is_kept_where_every_part_gets_two_samples(
    count, batch, world, accumulate, sizes
):
    samplers = [TrainSampler(count, 0, batch, rank, world, accumulate) for rank in range(world)]
    assert {len(sampler) for sampler in samplers} == {len(sizes)}
    tasks = [list(sampler.tasks(0)) for sampler in samplers]
    assert [sum(len(rank[step].indices) for rank in tasks) for step in range(len(sizes))] == sizes
    assert all(len(task.indices) for rank in tasks for task in rank)


def test_lengths_of_eval_samplers_add_up():
    for count in (1, 15, 16, 17, 70):
        for world in (1, 2, 3, 8):
            samplers = [EvalSampler(count, 16, rank, world, chunk=32) for rank in range(world)]
            # a chunk is two loads, or a short one
            assert sum(map(len, samplers)) == -(-count // 16)
            assert [len(list(sampler.tasks())) for sampler in samplers] == [
                len(sampler) for sampler in samplers
            ]


def test_starting_in_the_middle_of_an_epoch_makes_nothing_before(fashion):
    class Counting:
        labels = fashion.train.labels
        view = fashion.train.view

        def __len__(self):
            return len(self.labels)

        def pixels(self, seed, epoch, indices):
            asked.append(len(indices))
            return fashion.train.pixels(seed, epoch, indices)

    asked: list[int] = []
    loader = train_loader(Counting(), seed=0, batch_size=10, **NORM)
    next(loader.epoch(0, start_batch=15))
    assert asked == [10]
    assert len(list(loader.epoch(0, start_batch=len(loader)))) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_not_touched(fashion, workers):
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    batches(train_loader(fashion.train, seed=0, batch_size=50, workers=workers, **NORM))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_workers_persist_over_epochs_and_end_on_close(fashion):
    import multiprocessing

    loader = train_loader(fashion.train, seed=0, batch_size=50, workers=2, **NORM)
    pids = []
    for epoch in range(2):
        assert len(list(loader.epoch(epoch))) == 4
        pids.append({child.pid for child in multiprocessing.active_children()})
    assert pids[0] == pids[1]
    assert len(pids[0]) == 2
    loader.close()
    assert not pids[0] & {child.pid for child in multiprocessing.active_children()}


ABANDONED = """
import sys, time
from dgc.data import open_images, train_loader
images = open_images(name="fashion_mnist")
loader = train_loader(images.train, seed=0, batch_size=10, workers=2, mean=(0.5,) * 3, std=(0.5,) * 3)
batch = next(loader.epoch(0))
print("in the middle of an epoch", flush=True)
if sys.argv[1] == "raise":
    raise SystemExit(3)
"""


@pytest.mark.parametrize(("way", "code"), [("end", 0), ("raise", 3)])
def test_a_process_with_busy_workers_ends(way, code):
    done = subprocess.run(
        [sys.executable, "-c", ABANDONED, way],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GUARD,
    )
    assert done.returncode == code, done.stderr
    # from there it waited for ever once: the guard's case
    assert done.stdout == "in the middle of an epoch\n"


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    code = ABANDONED.replace(
        'print("in the middle of an epoch", flush=True)',
        "import os\nprint(os.getpid(), flush=True)",
    )
    code += (
        "\nimport multiprocessing\nprint(*[c.pid for c in multiprocessing.active_children()],"
        " flush=True)\n"
    )
    code += "time.sleep(10_000)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "end"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(_runs(pid) for pid in workers), "the end of the workers", by=None)


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_stop_signals_to_the_whole_group_leave_the_workers_working(fashion):
    import multiprocessing
    import signal

    loader = train_loader(fashion.train, seed=0, batch_size=10, workers=2, **NORM)
    stream = loader.epoch(0)
    next(stream)
    pids = [child.pid for child in multiprocessing.active_children()]
    for number in (signal.SIGINT, signal.SIGUSR1):
        for pid in pids:
            os.kill(pid, number)
    # SIGTERM from anybody but the parent (this process is the parent, so a child sends it)
    subprocess.run(["kill", "-TERM", *map(str, pids)], check=True)
    try:
        assert len(list(stream)) == 19
    finally:
        loader.close()


EARLY_SIGNALS = """
import multiprocessing, os, signal, sys
from dgc.data import open_images, train_loader
images = open_images(name="fashion_mnist", limit_train=200)
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
REQUESTS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
os.register_at_fork(
    before=lambda: os.kill(os.getpid(), signal.SIGUSR1),
    after_in_child=lambda: [os.kill(os.getpid(), number) for number in REQUESTS],
)
loader = train_loader(images.train, seed=0, batch_size=10, workers=2, mean=(0.5,) * 3, std=(0.5,) * 3)
print(len(list(loader.epoch(0))), len(multiprocessing.active_children()), bool(seen))
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(REQUESTS))
loader.close()
"""


def test_a_request_that_comes_while_a_worker_is_born_ends_no_worker_and_is_not_lost():
    """In a process of its own: what is registered for a fork stays registered."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY_SIGNALS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )
    assert done.stdout.splitlines() == ["20 2 True", "set()"], done.stderr
