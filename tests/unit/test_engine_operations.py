"""Each operation of the engine against PyTorch, on random shapes and every instruction set."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dgc
from dgc.infer import NativeModule
from dgc.kernels import cpu
from dgc.kernels.cpu.structs import Kind
from tests.graph_check import instruction_set, instruction_sets

pytestmark = pytest.mark.skipif(
    not cpu.available(), reason="the kernels were not built: no C++ compiler"
)
ISAS = instruction_sets()
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
BAR = 2e-6  # of the largest number


class Of(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def holds(
    net: nn.Module,
    shape: tuple[int, ...],
    *,
    bar: float = BAR,
    scale: float = 3.0,
    before: nn.Module | None = None,
) -> None:
    """One plan, and what the module gives, for two images on every instruction set.

    `before` makes the numbers of which the last layer makes means, or takes some: rounding is a
    share of those, and the largest mean may be as small as it likes.
    """
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1)) * scale
    with torch.no_grad():  # in float64, for PyTorch rounds as well
        wanted = copy.deepcopy(net).eval().double()(x.double())
        largest = wanted.abs().max()
        if before is not None:
            largest = largest.max(copy.deepcopy(before).eval().double()(x.double()).abs().max())
    for isa in ISAS:
        with instruction_set(isa), torch.inference_mode():
            engine = dgc.compile_for_inference(net, strict=True)
            assert isinstance(engine, NativeModule)
            found = engine(x)
        assert found.shape == wanted.shape
        off = float((found - wanted).abs().max() / largest.clamp(min=1e-3))
        assert off <= bar, (isa, off)


def layer(seed: int, module: nn.Module) -> nn.Module:
    """With weights that are not those of a fresh layer."""
    torch.manual_seed(seed)
    for p in module.parameters():
        nn.init.normal_(p, 0.0, 0.5)
    return module


ACTIVATIONS = {
    "relu": nn.ReLU(), "relu6": nn.ReLU6(), "hardswish": nn.Hardswish(), "hardsigmoid": nn.Hardsigmoid(),
    "silu": nn.SiLU(), "sigmoid": nn.Sigmoid(), "leaky": nn.LeakyReLU(0.13), "gelu": nn.GELU(),
    "gelu tanh": nn.GELU("tanh"), "tanh": nn.Tanh(), "elu": nn.ELU(0.7), "mish": nn.Mish(),
    "clamp": Of(lambda x: x.clamp(0, 6)), "hardtanh": nn.Hardtanh(0.0, 6.0),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    """By themselves, behind a convolution, behind a linear layer; over many magnitudes."""
    act = ACTIVATIONS[name]
    holds(act, (5, 9, 11), scale=30.0)
    holds(nn.Sequential(layer(0, nn.Conv2d(5, 21, 3, padding=1)), act), (5, 9, 11), bar=5e-6)
    holds(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer(0, nn.Linear(5, 9)), act),
        (5, 4, 4),
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_leave_a_broken_number_visible(name: str) -> None:
    x = torch.zeros(1, 3, 4, 5)
    x[0, 1, 2, 3] = torch.nan
    for isa in ISAS:
        with instruction_set(isa):
            found = dgc.compile_for_inference(ACTIVATIONS[name], strict=True)(x)
        assert torch.equal(found.isnan(), x.isnan())


@settings(max_examples=25, deadline=None)
@given(
    size=SHAPES, channels=st.integers(2, 19), k=st.sampled_from([3, 5]), stride=st.sampled_from([1, 2]),
    bias=st.booleans(), act=st.sampled_from(["relu6", "hardswish", "relu", "silu"]),
)  # fmt: skip
def test_depthwise_convolutions(
    size: tuple[int, int], channels: int, k: int, stride: int, bias: bool, act: str
) -> None:
    conv = nn.Conv2d(channels, channels, k, stride, k // 2, groups=channels, bias=bias)
    net = nn.Sequential(layer(1, conv), ACTIVATIONS[act])
    holds(net, (channels, *size), before=conv)
    if min(size) > 1:
        x = torch.zeros(1, channels, *size)
        kinds = [op.kind for op in dgc.compile_for_inference(net).plan_for(x).ops]  # type: ignore[operator, union-attr]
        assert Kind.CONV not in kinds


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(5, 30), st.integers(5, 30)), kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 3), pad=st.tuples(st.integers(0, 3), st.integers(0, 3)), dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 3]),
)  # fmt: skip
def test_dense_convolutions_of_any_form(
    size: tuple[int, int], kernel: tuple[int, int], stride: int, pad: tuple[int, int], dilation: int, groups: int
) -> None:  # fmt: skip
    reach = [dilation * (k - 1) + 1 for k in kernel]
    if any(n + 2 * p < r for n, p, r in zip(size, pad, reach, strict=True)):
        return
    conv = nn.Conv2d(6, 12, kernel, stride, pad, dilation, groups)
    holds(layer(2, conv), (6, *size), bar=5e-6)


@settings(max_examples=40, deadline=None)
@given(
    size=SHAPES, k=st.tuples(st.integers(1, 4), st.integers(1, 4)), stride=st.integers(1, 3),
    padded=st.booleans(), ceil=st.booleans(), include=st.booleans(), kind=st.sampled_from(["max", "average"]),
)  # fmt: skip
def test_pools(
    size: tuple[int, int], k: tuple[int, int], stride: int, padded: bool, ceil: bool, include: bool, kind: str
) -> None:  # fmt: skip
    pad = (k[0] // 2, k[1] // 2) if padded else (0, 0)
    if any(n + 2 * p < w for n, p, w in zip(size, pad, k, strict=True)):
        return
    pool = (
        nn.MaxPool2d(k, stride, pad, ceil_mode=ceil)
        if kind == "max"
        else nn.AvgPool2d(k, stride, pad, ceil_mode=ceil, count_include_pad=include)
    )
    holds(pool, (3, *size), before=nn.Identity())


@settings(max_examples=40, deadline=None)
@given(
    size=SHAPES, outs=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    pool=st.sampled_from([nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d]), tiles=st.booleans(),
)  # fmt: skip
@example(size=(12, 18), outs=(2, 3), pool=nn.AdaptiveMaxPool2d, tiles=False)  # windows alike
@example(size=(13, 19), outs=(5, 8), pool=nn.AdaptiveAvgPool2d, tiles=True)
@example(size=(4, 28), outs=(1, 1), pool=nn.AdaptiveAvgPool2d, tiles=True)  # small means
def test_adaptive_pools(
    size: tuple[int, int], outs: tuple[int, int], pool: type[nn.Module], tiles: bool
) -> None:
    """Also where no step divides the image, and more windows than pixels; out of sub-planes too."""
    conv = nn.Conv2d(3, 8, 3, padding=1)
    if tiles:
        conv = dgc.DynamicGroupConv2d(3, 8, 3, padding=1, heads=1, gate_factor=1.0, norm=False)  # type: ignore[assignment]
    for before, bar in ((layer(3, conv), 5e-6), (nn.Hardswish(), BAR)):
        holds(nn.Sequential(before, pool(outs)), (3, *size), before=before, bar=bar)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_adaptive_pools_pass_on_what_is_no_number(pool: type[nn.Module]) -> None:
    x = torch.randn(1, 2, 7, 9)
    x[0, 0, 3, 4], x[0, 1, 0, 0] = float("nan"), float("inf")
    engine = dgc.compile_for_inference(pool((4, 5)), strict=True)
    with torch.inference_mode():
        assert torch.allclose(engine(x), pool((4, 5))(x), rtol=1e-6, atol=1e-6, equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(
    size=SHAPES, more=st.tuples(st.integers(1, 9), st.integers(1, 9)), mode=st.sampled_from(["nearest", "bilinear"]),
    corners=st.booleans(), twice=st.booleans(),
)  # fmt: skip
def test_upsampling(
    size: tuple[int, int], more: tuple[int, int], mode: str, corners: bool, twice: bool
) -> None:
    how = {"align_corners": corners} if mode == "bilinear" else {}
    wanted = {"scale_factor": 2.0} if twice else {"size": (size[0] + more[0], size[1] + more[1])}
    holds(Of(lambda x: F.interpolate(x, mode=mode, **wanted, **how)), (3, *size))


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "shuffle": lambda x: x.view(x.size(0), 3, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
    "chunk": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "split": lambda x: torch.cat([p * 2 for p in x.split([2, 7, 3], 1)], 1),
    "slice": lambda x: x[:, 2:9],
    "steps": lambda x: x[:, ::3] + x[:, 1::3],
    "pixels": lambda x: x[:, :, ::2, 1:],
    "flipped": lambda x: x.flip(3),
    "padded": lambda x: F.pad(x, (1, 2, 0, 3)),
    "reflected": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "stack": lambda x: torch.stack([x, x * 2], 1).sum(1),
    "radix": lambda x: (
        x.view(x.size(0), 2, 6, *x.shape[2:])
        * torch.softmax(x.mean((2, 3)).view(-1, 2, 6), 1).view(-1, 2, 6, 1, 1)
    ).sum(1),
    "expand": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)).expand_as(x),
    "sums": lambda x: x + x.mean((2, 3), keepdim=True),
    "difference": lambda x: F.relu(x - x.mean((2, 3), keepdim=True)),
    "products": lambda x: x * torch.tanh(x),
    "spatial": lambda x: x * torch.sigmoid(x[:, :1]),
    "numbers": lambda x: 3 - (x * 0.5 + 0.25) / 4,
    "pixels of all channels": lambda x: torch.flatten(x, 1),
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("size", [(9, 14), (4, 5)])
def test_channels_and_pixels_in_another_order(name: str, size: tuple[int, int]) -> None:
    holds(Of(MOVES[name]), (12, *size))
    conv = layer(3, nn.Conv2d(12, 12, 3, padding=1))
    holds(nn.Sequential(conv, Of(MOVES[name])), (12, *size), bar=5e-6)


class Eca(nn.Module):
    """Attention along the channels' means, as in ECA-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).view(x.shape[0], 1, -1))
        return x * y.view(x.shape[0], -1, 1, 1).sigmoid().expand_as(x)


def test_attention_along_channels() -> None:
    holds(layer(4, Eca()), (12, 6, 7))


def test_weights_that_are_computed_from_other_weights() -> None:
    """Standardised weights, as in nf_resnet: what does not depend on the image is a constant."""

    class Standard(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            w = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std()
            return F.conv2d(x, w, self.bias, self.stride, self.padding)

    holds(layer(5, Standard(5, 7, 3, padding=1)), (5, 9, 9))
