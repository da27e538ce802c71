"""The inference plan gives the model's own logits, for the library's networks and for anybody
else's.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dgc
from dgc.errors import ArgumentError
from dgc.infer import NativeModule
from dgc.kernels import cpu
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Kind
from dgc.layers import DynamicGroupConv2d, iter_dgc

pytestmark = pytest.mark.skipif(
    not cpu.available(), reason="the kernels were not built: no C++ compiler"
)
ISAS = cpu.describe().get("supported", []) if cpu.available() else []

SMALL = {
    "densenet": ("dydensenet", {"stages": (2, 3, 2), "growth": (8, 16, 32), "num_classes": 10}, 32),
    "condensenet": (
        "dydensenet",
        {"stages": (2, 1, 2), "growth": (8, 16, 64), "num_classes": 11, "stem": "imagenet"},
        56,
    ),
    "resnet": ("dyresnet18", {"num_classes": 10}, 64),
}


def _trained(model: nn.Module, size: int, progress: float = 0.9) -> nn.Module:
    """BatchNorm statistics and affine parameters that are not those of a fresh network."""
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.3, 0.3)
    model.train()
    dgc.set_progress(model, progress)
    with torch.no_grad():
        for _ in range(6):
            model(torch.randn(8, 3, size, size))
    return model.eval()


def _check(engine: nn.Module, model: nn.Module, x: Tensor, bar: float = 1e-4) -> None:
    with torch.inference_mode():
        wanted, found = model(x), engine(x)
    assert found.shape == wanted.shape
    error = (found - wanted).flatten(1).abs().amax(1) / wanted.flatten(1).abs().amax(1).clamp(
        min=1e-6
    )
    assert error.max() < bar, error


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("progress", [0.0, 0.5, 0.999])
def test_the_networks_become_one_program_with_the_same_logits(name: str, progress: float) -> None:
    preset, numbers, size = SMALL[name]
    model = _trained(dgc.create_model(preset, **numbers), size, progress)
    engine = dgc.compile_for_inference(model)
    assert isinstance(engine, NativeModule)
    x = torch.randn(5, 3, size, size)
    assert engine.plan_for(x) is not None
    _check(engine, model, x)
    _check(engine, model, x[:1])
    _check(engine, model, torch.randn(2, 3, size + 9, size - 2))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", SMALL)
def test_every_instruction_set_gives_the_same_logits(
    isa: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library.FORCE, isa)
    preset, numbers, size = SMALL[name]
    model = _trained(dgc.create_model(preset, **numbers), size)
    _check(dgc.compile_for_inference(model), model, torch.randn(2, 3, size, size))


@pytest.mark.parametrize("name", SMALL)
def test_samples_do_not_depend_on_their_neighbours(name: str) -> None:
    preset, numbers, size = SMALL[name]
    engine = dgc.compile_for_inference(_trained(dgc.create_model(preset, **numbers), size))
    x = torch.randn(4, 3, size, size)
    alone = torch.cat([engine(s[None]) for s in x])
    assert torch.equal(engine(x), alone)
    x[2, 1, 5, 5] = torch.nan
    broken = engine(x)
    assert broken[2].isnan().all()
    assert torch.equal(broken[[0, 1, 3]], alone[[0, 1, 3]])


def test_a_batch_beyond_one_chunk() -> None:
    model = _trained(dgc.create_model("dydensenet", stages=(1,), growth=(8,), num_classes=4), 8)
    _check(dgc.compile_for_inference(model), model, torch.randn(150, 3, 8, 8))


def _sure(layer: DynamicGroupConv2d, x: Tensor) -> bool:
    """Whether rounding cannot change which channels are chosen: clear of the threshold, or exactly
    on it.
    """
    a = x if layer.norm is None else torch.relu(layer.norm(x))
    if layer.n_inactive == 0:
        return True
    ordered = layer.gates(a).sort(-1).values
    gap = ordered[..., layer.n_inactive] - ordered[..., layer.n_inactive - 1]
    return bool(((gap == 0) | (gap > 1e-4)).all())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    heads=st.integers(1, 8),
    width=st.integers(2, 12),
    outs=st.sampled_from([1, 4, 6, 8, 16, 32]),
    k=st.sampled_from([1, 3, 5]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    factor=st.sampled_from([1 / 16, 0.25, 0.45, 0.75, 1.0]),
    size=st.integers(5, 24),
    norm=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_one_layer_with_random_numbers(
    heads: int,
    width: int,
    outs: int,
    k: int,
    stride: int,
    dilation: int,
    factor: float,
    size: int,
    norm: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    channels = heads * max(width, -(-8 // heads))
    assume(round(channels * (1 - factor)) < channels)
    layer = DynamicGroupConv2d(
        channels, heads * outs, k, stride, k // 2, dilation, heads, gate_factor=factor, norm=norm
    ).eval()
    layer.set_inactive(round(channels * (1 - factor)))
    x = torch.randn(2, channels, size, size + 3)
    assume(size + 2 * (k // 2) >= dilation * (k - 1) + 1)
    with torch.no_grad():
        assume(_sure(layer, x))
        assume(layer(x).abs().amax() > 1e-3)
    _check(dgc.compile_for_inference(layer), layer, x)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("channels", "outs", "size", "norm", "form"),
    [
        (64, 32, 16, False, "weights"),  # few outputs read many channels of many pixels
        (64, 32, 16, True, "input"),  # is copied through its BatchNorm anyway
        (64, 512, 16, False, "input"),  # many outputs share a copy
        (64, 256, 7, False, "input"),
        (256, 1024, 7, False, "input"),  # three quarters of the vectors of pixels are pixels
        (256, 1024, 3, False, "lanes"),  # half of them
    ],
)
def test_where_the_gates_of_a_1x1_go(
    channels: int, outs: int, size: int, norm: bool, form: str, isa: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(library.FORCE, isa)
    torch.manual_seed(0)
    layer = DynamicGroupConv2d(channels, outs, gate_factor=0.5, norm=norm).eval()
    layer.set_inactive(channels // 2)
    engine = dgc.compile_for_inference(layer)
    x = torch.randn(3, channels, size, size)
    _check(engine, layer, x)
    assert isinstance(engine, NativeModule)
    plan = engine.plan_for(x)
    assert plan is not None
    (conv,) = (op for op in plan.ops if op.kind == Kind.CONV)
    if form == "lanes" and not library.many_registers():
        form = "input"
    assert (conv.scale_weights, conv.lanes) == (form == "weights", form == "lanes")
    alone = engine(x)
    x[1, 0, 0, 0] = torch.nan
    broken = engine(x)
    assert broken[1].isnan().any()
    assert torch.equal(broken[[0, 2]], alone[[0, 2]])


class Joined(nn.Module):
    """Images of one size from strided and from tiled convolutions, summed, concatenated and read by
    either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.tiled = DynamicGroupConv2d(16, 32, 3, padding=1, heads=2)
        self.strided = DynamicGroupConv2d(32, 32, 3, 2, 1, heads=2)
        self.side = nn.Conv2d(32, 32, 1, 2, bias=False)
        self.after = DynamicGroupConv2d(32, 32, 3, padding=1, heads=4)
        self.last = DynamicGroupConv2d(96, 24, 5, 1, 2, heads=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tiled(self.stem(x))
        s, side = self.strided(y), self.side(y)
        z = torch.relu(self.after(s) + side)
        return self.last(torch.cat([s + side, z, self.after(side)], 1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(24, 24), (27, 40), (31, 29)])
def test_tiled_and_strided_images_meet(
    isa: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library.FORCE, isa)
    model = _trained(Joined(), 24, 0.5)
    x = torch.randn(3, 3, *size)
    engine = dgc.compile_for_inference(model)
    assert isinstance(engine, NativeModule)
    assert Kind.WINO in [op.kind for op in engine.plan_for(x).ops]
    _check(engine, model, x)


def test_ties_are_all_switched_off() -> None:
    layer = DynamicGroupConv2d(16, 32, 1, heads=2).eval()
    layer.set_inactive(4)
    nn.init.zeros_(layer.fc1)  # every gate is its bias
    layer.fc2_bias.data[:] = torch.tensor([1.0, 2.0]).repeat(8)
    x = torch.randn(2, 16, 6, 6)
    _check(dgc.compile_for_inference(layer), layer, x, 1e-5)
    layer.fc2_bias.data.fill_(1.0)
    with torch.no_grad():
        assert not layer(x).any()
    assert not dgc.compile_for_inference(layer)(x).any()


class Mixed(nn.Module):
    """A user's own network: library layers beside things that no plan knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=True), nn.Softplus())
        self.body = nn.Sequential(
            DynamicGroupConv2d(16, 24, 3, padding=1, heads=4), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            DynamicGroupConv2d(24, 32, 1, heads=2), nn.Conv2d(32, 16, (1, 3), padding=(0, 1), groups=2),
            nn.AvgPool2d(2),
        )  # fmt: skip
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.stem(x))
        return self.head(F.interpolate(y, size=2).mean((2, 3)))


def test_what_the_plan_does_not_know_runs_as_it_was() -> None:
    model = _trained(Mixed(), 20, 0.9)
    engine = dgc.compile_for_inference(model)
    x = torch.randn(3, 3, 20, 20)
    assert engine.plan_for(x) is None
    with pytest.warns(UserWarning, match="softplus in stem") as told:
        engine(x)
    ours = [Path(one.filename).name for one in told if "softplus in stem" in str(one.message)]
    assert ours == [Path(__file__).name], "once, at the caller's line"
    assert engine.body.plan_for(torch.randn(1, 16, 20, 20)) is not None
    assert not any(True for _ in iter_dgc(engine.stem))
    _check(engine, model, x)


def test_an_image_that_the_network_cannot_take_is_no_matter_of_the_plan() -> None:
    model = _trained(dgc.create_model("dydensenet", stages=(1,), growth=(8,), num_classes=4), 8)
    engine = dgc.compile_for_inference(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="no plan")
        with pytest.raises(RuntimeError, match="to have 3 channels, but got 4"):
            engine(torch.randn(1, 4, 8, 8))
    _check(engine, model, torch.randn(1, 3, 8, 8))


def test_a_compiled_network_is_true_as_every_module() -> None:
    assert bool(dgc.compile_for_inference(dgc.create_model("cifar10_dydensenet86_h4")))


def test_sizes_are_a_list() -> None:
    with pytest.raises(ArgumentError, match=r"image_sizes=224: write a list of sizes: \[224\]"):
        dgc.compile_for_inference(nn.Conv2d(3, 4, 1), image_sizes=224)  # type: ignore[arg-type]


def test_plain_sequential_becomes_one_program() -> None:
    model = _trained(
        nn.Sequential(
            nn.Conv2d(3, 24, 5, 2, 2), nn.BatchNorm2d(24), nn.ReLU(), DynamicGroupConv2d(24, 48, 3, 2, 1, heads=3),
            nn.ReLU(), DynamicGroupConv2d(48, 64, 1, heads=4, norm=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Dropout(), nn.Linear(64, 9),
        ), 40,
    )  # fmt: skip
    engine = dgc.compile_for_inference(model)
    assert isinstance(engine, NativeModule)
    _check(engine, model, torch.randn(3, 3, 40, 36))


def test_other_types_and_copies_run_through_the_original() -> None:
    model = _trained(dgc.create_model("dydensenet", stages=(1,), growth=(8,), num_classes=4), 8)
    engine = dgc.compile_for_inference(model)
    x = torch.randn(2, 3, 8, 8)
    double = copy.deepcopy(engine).double()
    assert torch.allclose(double(x.double()).float(), model(x), atol=1e-4)
    assert engine(x.new_zeros(0, 3, 8, 8)).shape == (0, 4)


def test_the_given_model_is_left_alone_and_later_learning_is_not_seen() -> None:
    model = _trained(dgc.create_model("dydensenet", stages=(1,), growth=(8,), num_classes=4), 8)
    x = torch.randn(2, 3, 8, 8)
    before = model(x).detach()
    engine = dgc.compile_for_inference(model)
    nn.init.zeros_(model.classifier.weight)
    assert torch.allclose(engine(x), before, atol=1e-4)
