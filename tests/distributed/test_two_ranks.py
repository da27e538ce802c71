"""Two processes compute what one computes on the joined batch, and evaluate to the same last digit."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dgc.train.ranks import Ranks
from tests.distributed import worker
from tests.waiting import wait_for_all

ROOT = Path(__file__).parents[2]
ALONE = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What two gloo processes come to."""
    out = tmp_path_factory.mktemp("ranks") / "out.pt"
    env = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
    }
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.distributed.worker", str(out)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    wait_for_all(processes)
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def one_rank():
    threads = torch.get_num_threads()
    yield worker.results(ALONE)
    torch.set_num_threads(threads)


def test_gradients_of_the_joined_batch(one_rank, two_ranks):
    assert one_rank["gradients"].keys() == two_ranks["gradients"].keys()
    for name, expected in one_rank["gradients"].items():
        assert expected.abs().max() > 0, name
        difference = (two_ranks["gradients"][name] - expected).abs().max() / expected.abs().max()
        assert difference < 1e-12, name


def test_figures_to_the_last_digit(one_rank, two_ranks):
    assert two_ranks["figures"] == one_rank["figures"]
    assert [row["samples"] for row in one_rank["figures"]] == [
        samples for samples, _ in worker.EVALUATIONS
    ]


@pytest.mark.parametrize("option", worker.OPTIONS)
def test_each_later_option_trains_what_one_process_trains(option, one_rank, two_ranks):
    found, expected = two_ranks["trained"][option], one_rank["trained"][option]
    bar = 1e-6 if option == "teacher" else 1e-9  # a teacher's word is taken in float32
    assert (found - expected).abs().max() / expected.abs().max() < bar
    others = [value for name, value in one_rank["trained"].items() if name != option]
    assert all((value - expected).abs().max() > 1e-5 for value in others), "it changed nothing"


def test_accumulated_gradients_are_those_of_the_whole_batch(one_rank):
    found = worker.gradients(ALONE, accumulate=5)  # chunks of 3, 3, 2, 2, 2
    for name, expected in one_rank["gradients"].items():
        assert (found[name] - expected).abs().max() / expected.abs().max() < 1e-12, name
