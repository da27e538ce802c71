"""The state of a training as bytes and back; pointers, purging, what does not fit."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from dgc.errors import IntegrityError
from dgc.run import checkpoint_store
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.train import seeding, state
from dgc.train.state import Position, Progress


@pytest.fixture
def run(tmp_path) -> RunDir:
    run = RunDir(tmp_path)
    run.checkpoints.mkdir()
    return run


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).to(
        memory_format=torch.channels_last
    )


def momentum(network: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    named = network.named_parameters()
    return {"momentum": {name: torch.randn_like(value) for name, value in named}}


def test_round_trip():
    torch.manual_seed(0)
    first, second = model(), model()
    first[1].running_mean.normal_()
    progress = Progress(
        Position(2, 3, 19), {"loss": 0.1 + 0.2}, {"step": 7, "value": 1 / 3}, None, ["note"]
    )
    held = momentum(first)
    files = state.encode(first, held, progress, {"scaler": {}, "random": []})
    restored = momentum(second)
    state.restore(files, second, restored, "here")
    assert state.decode_state(files) == (progress, {"scaler": {}, "random": []})
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    for name, value in held["momentum"].items():
        assert torch.equal(value, restored["momentum"][name])
        assert restored["momentum"][name].stride() == value.stride()
    assert state.encode(second, restored, progress, {"scaler": {}, "random": []}) == files


def test_another_network_is_named():
    files = state.encode(model(), {}, Progress(), {})
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(4))
    with pytest.raises(IntegrityError) as caught:
        state.restore(files, other, {}, "step-000001")
    assert str(caught.value) == (
        "step-000001: does not fit the recipe's model: 2 problems: 0.bias is missing; "
        "0.weight has shape [4, 3, 3, 3], expected [8, 3, 3, 3]"
    )


def test_random_states_go_on_where_they_were():
    seeding.seed_everything(5)
    random.random(), np.random.normal(), torch.rand(3)
    state = seeding.random_state()
    drawn = random.random(), np.random.normal(), torch.rand(3).tolist()
    seeding.seed_everything(6)
    seeding.restore_random_state(state)
    assert (random.random(), np.random.normal(), torch.rand(3).tolist()) == drawn


def test_purge_keeps_the_last_and_the_named(run):
    for step in range(6):
        checkpoint_store.commit(run, step, {"state.json": b"%d" % step})
    assert checkpoint_store.purge(run, 2, {1}) == [0, 2, 3]
    assert [found.step for found in checkpoint_store.list_checkpoints(run)] == [1, 4, 5]


def test_pointers(run):
    written = checkpoint_store.commit(run, 3, {"state.json": b"x"})
    checkpoint_store.point_to(run.best, written, metric="top1_error", value=4.5)
    found = read_json(run.best)
    assert (found["step"], found["path"], found["value"]) == (3, "checkpoints/step-000003", 4.5)
    checkpoint_store.repair_pointer(run, run.best, 2)
    assert not run.best.exists()
    checkpoint_store.repair_pointer(run, run.last, 3)
    assert read_json(run.last)["step"] == 3


def test_later_ones_are_set_aside(run):
    for step in (1, 2, 3):
        checkpoint_store.commit(run, step, {"state.json": b"x"})
    assert checkpoint_store.set_aside_after(run, 1) == ["bad-step-000002", "bad-step-000003"]
    assert [found.step for found in checkpoint_store.list_checkpoints(run)] == [1]


def test_none_is_none(run, tmp_path):
    assert checkpoint_store.newest_valid(run) is None
    assert checkpoint_store.newest_valid(RunDir(tmp_path / "absent")) is None
