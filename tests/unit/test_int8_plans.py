"""Whole plans in 8 bits: the same bits on every instruction set and feature of this machine, for any
number of threads and any batch; near float32; broken images break themselves alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.errors import ArgumentError
from dgc.infer import NativeModule
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.kernels.cpu.isa import LEVELS, Choice
from dgc.kernels.cpu.library import Library
from dgc.kernels.cpu.structs import Kind
from tests import random_graphs
from tests.plan_files import plan_of

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
SMALL = {
    "densenet": ("dydensenet", {"stages": (2, 3, 2), "growth": (8, 16, 32), "num_classes": 10}, 32),
    "condensenet": (
        "dydensenet",
        {"stages": (2, 1, 2), "growth": (8, 16, 64), "num_classes": 11, "stem": "imagenet"},
        56,
    ),
    "resnet": ("dyresnet18", {"num_classes": 10}, 64),
}
INT8_KINDS = {Kind.CONV8, Kind.STATS, Kind.ROWS16, Kind.GATES16}
FLOAT_PRODUCTS = {Kind.CONV, Kind.WINO, Kind.LINEAR, Kind.GATES, Kind.MEAN}


def all_libraries() -> Iterator[Library]:
    loaded = library.load()
    assert loaded is not None
    for index in range(len(LEVELS)):
        if not loaded.handle.dgc_supports(index):
            continue
        bits = int(loaded.handle.dgc_features(index))
        names = [n for i, n in enumerate(("vnni", "bf16", "amx")) if bits >> i & 1]
        for count in range(len(names) + 1):
            yield Library(loaded.handle, loaded.path, Choice(index, tuple(names[:count])))


def network(name: str, progress: float) -> tuple[nn.Module, int]:
    preset, numbers, size = SMALL[name]
    torch.manual_seed(0)
    model = dgc.create_model(preset, **numbers)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.3, 0.3)
    dgc.set_progress(model.train(), progress)
    with torch.no_grad():
        for _ in range(6):
            model(torch.randn(8, 3, size, size))
    return model.eval(), size


def int8_plan(model: nn.Module, x: Tensor) -> NativePlan:
    return plan_of(model, x, "int8")


def assert_same(found: Tensor, wanted: Tensor, what: object) -> None:
    assert torch.equal(found.view(torch.int32), wanted.view(torch.int32)), what


@pytest.mark.parametrize("name", SMALL)
def test_one_network_gives_the_same_bits_everywhere(name: str) -> None:
    model, size = network(name, 0.9)
    x = torch.randn(5, 3, size, size)
    plan = int8_plan(model, x)
    kinds = {Kind(op.kind) for op in plan.ops}
    assert kinds >= INT8_KINDS
    assert not kinds & FLOAT_PRODUCTS
    libraries = list(all_libraries())
    wanted = plan.run(x, libraries[0], 1)
    for each in libraries:
        for threads in (1, 2, 3, 4):
            assert_same(plan.run(x, each, threads), wanted, (each.choice, threads))
    for threads in (1, 2, 3):
        for chunk in (1, 2, 4):
            assert_same(plan.run(x, libraries[-1], threads, chunk=chunk), wanted, (threads, chunk))


@pytest.mark.parametrize("name", SMALL)
def test_it_is_near_float32(name: str) -> None:
    """With no channel off: a choice among channels that are nearly equal is not what is measured."""
    model, size = network(name, 0.0)
    x = torch.randn(6, 3, size, size)
    with torch.inference_mode():
        wanted = model(x)
        found = dgc.compile_for_inference(model, precision="int8")(x)
    error = float((found - wanted).norm() / wanted.norm())
    assert 0 < error < 0.25, error  # 1% of noise a layer makes 9% of the resnet's logits


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_give_the_same_bits_everywhere(seed: int) -> None:
    graph = random_graphs.draw(seed)
    net = random_graphs.network(graph).eval()
    torch.manual_seed(seed)
    x = torch.randn(graph.batch, *graph.shape)
    engine = dgc.compile_for_inference(net, precision="int8")
    if not isinstance(engine, NativeModule) or (plan := engine.plan_for(x)) is None:
        return  # parts of it run in PyTorch: there is no one plan
    libraries = list(all_libraries())
    wanted = plan.run(x, libraries[0], 1)
    for i, each in enumerate(libraries):
        assert_same(plan.run(x, each, 1 + i % 3), wanted, each.choice)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("name", SMALL)
def test_a_broken_image_breaks_itself_alone(name: str, broken: float) -> None:
    model, size = network(name, 0.9)
    x = torch.randn(4, 3, size, size)
    plan = int8_plan(model, x)
    for each in all_libraries():
        whole = plan.run(x, each, 2)
        bad = x.clone()
        bad[2, 1, 3, 3] = broken
        found = plan.run(bad, each, 2)
        assert found[2].isnan().all(), each.choice
        assert_same(found[[0, 1, 3]], whole[[0, 1, 3]], each.choice)
        assert_same(plan.run(x, each, 2), whole, each.choice)  # nothing of it is left in the plan


def test_images_of_zeros_and_large_numbers() -> None:
    model, size = network("resnet", 0.9)
    for factor in (0.0, 1e-38, 1e20):
        x = torch.randn(2, 3, size, size) * factor
        plan = int8_plan(model, x)
        libraries = list(all_libraries())
        wanted = plan.run(x, libraries[0], 1)
        for each in libraries:
            assert_same(plan.run(x, each, 1), wanted, each.choice)


def test_an_unknown_precision_is_one_line() -> None:
    with pytest.raises(ArgumentError, match=r"precision 'int4': there are float32 and int8"):
        dgc.compile_for_inference(nn.Conv2d(3, 4, 3), precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"'bfloat16': there are float32 and int8 \(why no bf"):
        dgc.compile_for_inference(nn.Conv2d(3, 4, 3), precision="bfloat16")  # type: ignore[arg-type]


def test_what_loses_most_is_named() -> None:
    """A layer whose weights have one far larger than the others loses most."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)
    )
    with torch.no_grad():
        net[2].weight[:, 0, 0, 0] = 40.0
        net[2].weight[:, 0] *= 0.01
    found = dgc.compare_precisions(nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                                   torch.rand(4, 3, 12, 12))  # fmt: skip
    assert found.layers[0].name == "0.2"
    assert len(found.layers) == 3
    assert 0 < found.layers[-1].error < found.layers[0].error < 0.5
    assert "4 images" in str(found)


def test_layers_with_the_norm_of_another_are_compared_too() -> None:
    model, size = network("resnet", 0.0)
    found = dgc.compare_precisions(model, torch.randn(2, 3, size, size))
    assert not found.unlike
    assert len(found.layers) == 20
    assert all(0 < loss.error < 0.1 for loss in found.layers), str(found)
