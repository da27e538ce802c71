"""The engine against the module on random graphs, and the faults that these found, each by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.infer import NativeModule
from dgc.kernels import cpu
from dgc.kernels.cpu import library
from dgc.layers import DynamicGroupConv2d
from tests.graph_check import EXEMPT, check, instruction_sets, off, run, shrunk
from tests.random_graphs import Graph, Step, draw

pytestmark = pytest.mark.skipif(
    not cpu.available(), reason="the kernels were not built: no C++ compiler"
)
ISAS = instruction_sets()
REDUCED, FULL = 60, 600


def test_random_graphs_give_what_the_module_gives() -> None:
    report = run(range(REDUCED), ISAS)
    print(report)
    assert not report.failed, str(report)
    assert report.near_ties <= max(1, EXEMPT * REDUCED)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_random_graphs_give_what_the_module_gives() -> None:
    report = run(range(FULL), ISAS, say=print)
    print(report)
    assert not report.failed, str(report)
    assert report.near_ties <= EXEMPT * FULL
    assert report.whole >= FULL / 2


# --- what they found, each by itself ---


def _right(net: nn.Module, x: Tensor) -> nn.Module:
    engine = dgc.compile_for_inference(net.eval())
    with torch.inference_mode():
        found, wanted = engine(x.clone()), net(x.clone())
    assert off(found, wanted).max() < 1e-4
    return engine


class StridedBesideTiled(nn.Module):
    """What a strided convolution writes, concatenated with what a tiled one makes of it."""

    def __init__(self, strided: nn.Module) -> None:
        super().__init__()
        self.strided = strided
        self.tiled = DynamicGroupConv2d(16, 32, 3, padding=1, heads=2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.strided(x)
        return torch.cat([a, self.tiled(a)], 1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(32, 32), (27, 33), (20, 14)])
@pytest.mark.parametrize(
    "strided",
    [
        lambda: nn.Conv2d(8, 16, 3, 2, 1),
        lambda: nn.Conv2d(8, 16, 7, 2, 3, groups=2),
        lambda: nn.Conv2d(8, 16, 1, 2),
        lambda: DynamicGroupConv2d(8, 16, 3, 2, 1, heads=4),
        lambda: DynamicGroupConv2d(8, 16, 5, 2, 2, heads=2, norm=False),
    ],
    ids=["3x3", "7x7 grouped", "1x1", "dynamic 3x3", "dynamic 5x5"],
)  # fmt: skip
def test_a_strided_convolution_concatenated_with_a_tiled_one(
    isa: str, size: tuple[int, int], strided: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library.FORCE, isa)
    torch.manual_seed(0)
    x = torch.randn(2, 8, *size)
    engine = _right(StridedBesideTiled(strided()), x)  # type: ignore[operator]
    assert engine.plan_for(x) is not None


def test_a_network_that_ends_with_a_global_pool_gives_images_of_one_pixel() -> None:
    net = nn.Sequential(DynamicGroupConv2d(16, 32, 3, padding=1, heads=2), nn.AdaptiveAvgPool2d(1))
    assert _right(net, torch.randn(2, 16, 9, 9))(torch.randn(3, 16, 9, 9)).shape == (3, 32, 1, 1)


def test_a_relu_between_linear_layers_is_part_of_the_plan() -> None:
    net = nn.Sequential(
        DynamicGroupConv2d(16, 32, heads=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 24), nn.ReLU(),
        nn.Linear(24, 5),
    )  # fmt: skip
    x = torch.randn(2, 16, 9, 9)
    engine = _right(net, x)
    assert isinstance(engine, NativeModule)
    assert engine.plan_for(x) is not None


class InPlace(nn.Module):
    """Reads an image again after it was changed in place."""

    def __init__(self, change: object) -> None:
        super().__init__()
        self.conv, self.relu, self.change = (
            DynamicGroupConv2d(16, 16, heads=2),
            nn.ReLU(inplace=True),
            change,
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.change(self, y, x)  # type: ignore[operator]
        return torch.cat([y, z], 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda net, y, x: net.relu(y),
        lambda net, y, x: torch.relu_(y),
        lambda net, y, x: nn.functional.relu(y, inplace=True),
        lambda net, y, x: y.add_(x),
        lambda net, y, x: y.relu_(),
    ],
    ids=["layer", "function", "argument", "sum", "method"],
)
def test_an_image_that_is_changed_in_place_is_changed_for_all_its_readers(change: object) -> None:
    x = torch.randn(2, 16, 9, 9)
    assert _right(InPlace(change), x).plan_for(x) is not None


class ChangedInput(nn.Module):
    """Its block changes in place what the network reads again."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ReLU(inplace=True), DynamicGroupConv2d(16, 16, heads=2), nn.BatchNorm2d(16)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.softplus(x)
        return self.block(y) + y


def test_a_part_that_changes_its_input_in_place_still_does() -> None:
    engine = _right(ChangedInput(), torch.randn(2, 16, 9, 9))
    assert isinstance(engine.block[1], NativeModule)


class ManyPixels(nn.Module):
    """A classifier on all pixels, behind something that no kernel computes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), DynamicGroupConv2d(16, 16, 3, padding=1, heads=2)
        )
        self.head = nn.Linear(16 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(torch.cumsum(self.body(x), 2), 1))


def test_where_no_plan_can_be_made_of_a_network_its_parts_are_tried() -> None:
    x = torch.randn(2, 3, 8, 8)
    engine = _right(ManyPixels(), x)
    assert isinstance(engine, NativeModule)
    assert engine.plan_for(x) is None
    assert isinstance(engine.original.body, NativeModule)
    assert engine.original.body.plan_for(x) is not None
    assert off(engine(x), ManyPixels.forward(engine.original, x)).max() == 0


class Handed(nn.Module):
    """Hands its layer a BatchNorm, and reads one of the layer's attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm2d(16), DynamicGroupConv2d(16, 16, heads=2, norm=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(nn.functional.softplus(x), input_norm=self.norm)
        return y[:, : self.layer.out_channels - 2]


def test_a_part_that_is_given_more_than_an_image_runs_as_it_was() -> None:
    _right(Handed(), torch.randn(2, 16, 9, 9))


class ByName(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = DynamicGroupConv2d(16, 16, heads=2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat(tensors=[self.conv(x), torch.relu(input=x)], dim=1)
        return torch.flatten(input=y, start_dim=1)


def test_arguments_by_name_are_no_error() -> None:
    _right(ByName(), torch.randn(2, 16, 9, 9))


def test_what_a_hook_does_is_part_of_the_plan() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 1), DynamicGroupConv2d(16, 16, heads=2))
    net[0].register_forward_hook(lambda m, given, result: result * 3)
    x = torch.randn(2, 3, 9, 9)
    assert _right(net, x).plan_for(x) is not None


# --- the check itself ---


def test_a_failing_graph_is_made_small_and_can_be_read() -> None:
    steps = (
        Step(
            "conv",
            (0,),
            {
                "cin": 3,
                "cout": 8,
                "k": 3,
                "stride": 1,
                "pad": 1,
                "dil": 1,
                "groups": 1,
                "bias": True,
            },
        ),
        Step("norm", (1,), {"num_features": 8}),
        Step("relu", (2,)),
        Step("add", (3, 1)),
        Step("max_pool", (4,), {"k": 2, "stride": 2, "pad": 0}),
    )
    small = shrunk(
        Graph(1, (3, 8, 8), 3, 0.0, steps), lambda g: any(s.op == "relu" for s in g.steps)
    )
    assert str(small).splitlines() == [
        "graph 1: 1 images (3, 8, 8), progress 0.0",
        "  v1 = relu(v0) #0",
    ]


def test_a_graph_is_the_same_whenever_it_is_drawn() -> None:
    assert [str(draw(s)) for s in range(20)] == [str(draw(s)) for s in range(20)]


def test_the_check_sees_a_plan_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = next(
        g for g in map(draw, range(100)) if g.known and any(s.op == "linear" for s in g.steps)
    )
    run = NativeModule.forward
    monkeypatch.setattr(NativeModule, "forward", lambda self, x: run(self, x) * 1.001)
    assert any("off by" in line for line in check(graph, ISAS[:1]).wrong)
