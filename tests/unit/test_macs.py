"""MACs and parameters to the unit, counted three ways that are kept apart."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import dgc
from dgc.layers.macs import count
from dgc.models import RELEASED, create_model
from tests import golden

DENSE = {
    "cifar10_dydensenet86_h4": 177.3, "cifar100_dydensenet86_h4": 177.4,
    "imagenet_dydensenet_h4": 1280.6, "imagenet_dyresnet18_h4": 1818.2,
}  # fmt: skip


def size(name: str) -> int:
    return 32 if "cifar" in name else 224


@pytest.mark.parametrize("name", RELEASED)
def test_the_authors_count_to_the_unit(name: str) -> None:
    listed = golden.released_keys()[name]
    found = count(create_model(name), size(name))
    assert found.promised == listed["flops_by_authors_counter"]
    assert found.params == listed["params"] == sum(row.params for row in found.rows)
    assert round(found.dense / 1e6, 1) == DENSE[name]
    twin = count(create_model(name, form="dense"), size(name))
    assert twin.dense == twin.promised == twin.executed == found.dense


@pytest.mark.parametrize(
    ("numbers", "macs", "params"),
    [
        ({"heads": 1}, 68.85, 2.15),
        ({"heads": 2}, 69.58, 2.86),
        ({"heads": 4}, 71.04, 4.26),
        ({"heads": 8}, 73.95, 7.08),
        ({"gate_factor": 0.5}, 108.20, 4.26),
        ({"gate_factor": 0.125}, 52.46, 4.26),
        ({"gate_factor": 0.0625}, 43.17, 4.26),
    ],
)
def test_other_heads_and_prunings(numbers: dict[str, float], macs: float, params: float) -> None:
    found = count(create_model("cifar10_dydensenet86_h4", **numbers), 32)
    assert round(found.promised / 1e6, 2) == macs
    assert round(found.params / 1e6, 2) == params


def test_executed_follows_the_channels_that_are_off_now() -> None:
    model = create_model("cifar10_dydensenet86_h4")
    start = count(model, 32)
    assert start.executed > start.dense, "nothing is off yet, and the gates cost too"
    dgc.set_progress(model, 1.0)
    end = count(model, 32)
    assert end.executed == end.promised, "every C of this network is a multiple of 4"
    assert (end.dense, end.promised) == (start.dense, start.promised)
    resnet = create_model("imagenet_dyresnet18_h4")
    dgc.set_progress(resnet, 1.0)
    found = count(resnet, 224)
    assert found.executed > found.promised, "29 channels of 64 are kept, 28.8 are promised"


def test_any_network_with_the_layer_in_it() -> None:
    layer = dgc.DynamicGroupConv2d(8, 16, 3, 2, 1, heads=2, gate_factor=0.5)
    layer.set_inactive(4)
    net = nn.Sequential(layer, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 4 * 5, 3))
    rows = count(net, (16, 20), 8).rows
    assert [row.kind for row in rows] == [
        "DynamicGroupConv2d",
        "ReLU",
        "MaxPool2d",
        "Flatten",
        "Linear",
    ]
    conv, relu, pooled = 16 * 8 * 10 * 8 * 9, 8 * 16 * 20, 8 * 16 * 20
    gates = 2 * (1 * 8 + 8 * 1 + 8) + 2 * (1 + 8) + 2 * 8
    assert (rows[0].shape, rows[0].dense) == ((16, 8, 10), conv + relu)
    assert rows[0].promised == rows[0].executed == relu + pooled + gates + conv / 2
    assert [row.dense for row in rows[1:]] == [16 * 8 * 10, 16 * 4 * 5 * 4, 0, 320 * 3 + 3]


def test_counting_changes_nothing() -> None:
    model = create_model("dydensenet", stages=(1, 1), growth=(8, 8)).train()
    before = copy.deepcopy(model.state_dict())
    count(model, 32)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    data = count(model, 32).as_dict()
    assert set(data) == {"rows", "params", "dense", "promised", "executed"}
