"""Training by the C++ kernels: output and every gradient against the oracle in float64, shapes,
ties, NaN, threads.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import dgc
from dgc.bench.peak_memory import saved_bytes
from dgc.kernels.cpu import describe, library, train_passes
from dgc.layers import DynamicGroupConv2d, support
from dgc.layers.algorithms.native_layer import NativeLayer
from dgc.layers.algorithms.native_static import NativeStatic
from dgc.layers.static import norm_relu_conv
from tests.unit.test_layers_gradients import gradients, random_layer

pytestmark = pytest.mark.skipif(
    not train_passes.available(), reason="the kernels were not built: no C++ compiler"
)
ISAS = [str(name) for name in describe().get("supported", [])]  # type: ignore[attr-defined]


def same(ours: list[Tensor], oracle: list[Tensor], tolerance: float = 1e-4) -> None:
    """Relative to the largest value; what vanishes in float64 may be noise in float32."""
    for i, (a, b) in enumerate(zip(ours, oracle, strict=True)):
        scale = max(1e-2, b.abs().max().item())
        assert (a.double() - b).abs().max().item() <= tolerance * scale, i


def clear_of_zero(layer: DynamicGroupConv2d, x: Tensor) -> Tensor:
    """x whose activations are far enough from zero for float32 to put them on the same side of it
    as float64.
    """
    with torch.no_grad():
        return torch.where(copy.deepcopy(layer).norm(x).abs() < 1e-5, x + 0.01, x)  # type: ignore[misc]


def against_oracle(layer: DynamicGroupConv2d, x: Tensor) -> None:
    """`layer` and x in float64; the kernels get them in float32."""
    x = clear_of_zero(layer, x)
    oracle, ours = copy.deepcopy(layer), copy.deepcopy(layer).float()
    oracle.backend = "masked"
    assert "NativeLayer" in type(ours(x.float()).grad_fn).__name__
    ours.load_state_dict(layer.state_dict())
    same(gradients(ours, x.float()), gradients(oracle, x))


SHAPES = st.tuples(
    st.integers(1, 8),  # heads
    st.integers(1, 6),  # input channels a head
    st.sampled_from([1, 2, 3, 4, 7, 8, 16, 24]),  # outputs a head
    st.sampled_from([1, 3, 5]),  # kernel
    st.integers(1, 3),  # stride
    st.integers(0, 2),  # padding
    st.integers(1, 2),  # dilation
)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=SHAPES, off=st.floats(0, 0.99), size=st.tuples(st.integers(9, 24), st.integers(9, 24)),
    training_mode=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_shape_agrees_with_the_oracle(
    isa: str,
    shape: tuple[int, ...],
    off: float,
    size: tuple[int, int],
    training_mode: bool,
    seed: int,
) -> None:
    heads, c, j, *rest = shape
    numbers = dict(zip(("kernel_size", "stride", "padding", "dilation"), rest, strict=True))
    layer = random_layer(
        seed,
        int(off * heads * c),
        in_channels=heads * c,
        out_channels=heads * j,
        heads=heads,
        gate_factor=1.0,
        **numbers,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.FORCE, isa)
        against_oracle(layer.train(training_mode), torch.randn(3, heads * c, *size).double())


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    shape=SHAPES,
    off=st.floats(0, 0.99),
    size=st.tuples(st.integers(9, 40), st.integers(9, 40)),
    seed=st.integers(0, 2**32 - 1),
)
def test_many_more_shapes_agree_with_the_oracle(
    shape: tuple[int, ...], off: float, size: tuple[int, int], seed: int
) -> None:
    heads, c, j, *rest = shape
    numbers = dict(zip(("kernel_size", "stride", "padding", "dilation"), rest, strict=True))
    layer = random_layer(
        seed, int(off * heads * c * 8), in_channels=heads * c * 8, out_channels=heads * j, heads=heads, gate_factor=1.0,
        **numbers,
    )  # fmt: skip
    against_oracle(layer.train(), torch.randn(3, heads * c * 8, *size).double())


@pytest.mark.parametrize("n", [0, 12])
@pytest.mark.parametrize("bias", [-1.0, 1.0], ids=["all gates zero", "all gates equal"])
def test_equal_gates(n: int, bias: float) -> None:
    """n = 12 of equal gates switches all off, ties included; gates of zero are off anyhow."""
    layer = random_layer(2, n, in_channels=16, out_channels=8)
    with torch.no_grad():
        layer.fc2.zero_()
        layer.fc2_bias.fill_(bias)
    against_oracle(layer, torch.randn(2, 16, 9, 9).double())
    y = layer.float()(torch.randn(2, 16, 9, 9))
    assert bool(y.any()) == (n == 0 and bias > 0)


def test_one_positive_gate() -> None:
    layer = random_layer(2, 12, in_channels=16, out_channels=8)
    with torch.no_grad():
        layer.fc2.zero_()
        layer.fc2_bias.fill_(-1)
        layer.fc2_bias[:, 5] = 1
    against_oracle(layer, torch.randn(2, 16, 9, 9).double())


@pytest.mark.parametrize("kernel", [1, 3])
def test_nan_stays_in_its_sample(kernel: int) -> None:
    layer = (
        random_layer(
            4, 48, in_channels=64, out_channels=16, kernel_size=kernel, padding=kernel // 2
        )
        .float()
        .eval()
    )
    x = torch.randn(3, 64, 9, 9)
    clean = layer(x)
    x[1, 5, 2, 2] = torch.nan
    y = layer(x)
    assert y[1].isnan().all()
    assert torch.equal(y[[0, 2]], clean[[0, 2]])


def test_a_norm_in_front_and_a_view_that_is_no_copy() -> None:
    layer, before = (
        random_layer(8, 40, in_channels=64, out_channels=8, kernel_size=3, padding=1),
        nn.BatchNorm2d(64),
    )
    layer.norm.eval()  # type: ignore[union-attr]  # or the scale of `before` would not matter: a gradient of noise
    pair = nn.ModuleList([layer, before.double()])
    oracle, ours = copy.deepcopy(pair), copy.deepcopy(pair).float()
    oracle[0].backend = "masked"
    wide = torch.randn(3, 80, 10, 11).double()

    def call(p: nn.ModuleList, x: Tensor) -> Tensor:
        y: Tensor = p[0](x[:, 8:72], input_norm=p[1])
        return y

    found = [
        gradients(p, x, lambda v, p=p: call(p, v))
        for p, x in ((ours, wide.float()), (oracle, wide))
    ]
    same(*found)
    torch.testing.assert_close(ours[1].running_var.double(), oracle[1].running_var)


@pytest.mark.parametrize(("groups", "out", "stride"), [(4, 8, 1), (4, 64, 2), (8, 8, 1), (2, 6, 3)])
def test_grouped_convolutions(groups: int, out: int, stride: int) -> None:
    torch.manual_seed(0)
    norm, conv = (
        nn.BatchNorm2d(16).double(),
        nn.Conv2d(16, out, 3, stride, 1, groups=groups, bias=False).double(),
    )
    plain = nn.ModuleList([norm, conv])
    ours = copy.deepcopy(plain).float()
    x = torch.randn(3, 16, 13, 12).double()
    y = norm_relu_conv(ours[0], ours[1], x.float())
    assert "NativeStatic" in type(y.grad_fn).__name__
    found = gradients(ours, x.float(), lambda v: norm_relu_conv(ours[0], ours[1], v))
    same(found, gradients(plain, x, lambda v: conv(norm(v).relu())))


# ---- a dense block -------------------------------------------------------------------------------


def block_net(progress: float = 0.9) -> nn.Module:
    torch.manual_seed(0)
    net = dgc.create_model("dydensenet", stages=(3, 2), growth=(8, 16), num_classes=5).train()
    dgc.set_progress(net, progress)
    return net


class Kinks(TorchDispatchMode):
    """The least distance to a place where a network has a kink: a zero before a ReLU, or two gates
    between which a head draws its line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.least = math.inf

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default):
            near = args[0].abs()[args[0] != 0]  # an exact zero is a channel that is left out
            self.least = min([self.least, near.min().item()])
        if func is torch.ops.aten.kthvalue.default:
            ordered, k = args[0].sort(dim=args[2]).values.movedim(args[2], -1), args[1]
            gaps = ordered[..., k] - ordered[..., k - 1]
            # gates that are equal are so in any precision (no weight has moved them yet)
            self.least = min([self.least, *gaps[gaps > 0].tolist()])
        return func(*args, **(kwargs or {}))


@functools.cache
def clear_images(progress: float = 0.9) -> Tensor:
    """Images (6, 3, 16, 16) on which block_net stays clear of its kinks.

    Where a value is so near zero that float32 puts it on the other side, a gradient differs by a
    hundred times the usual rounding, in PyTorch as in the kernels; and which of them it is depends
    on the instruction set. A wider bound would hide faults, so the images are chosen: of 20, those
    that stay farthest from every kink in float64, which is the same choice on every machine.
    """
    net = block_net(progress).double()
    dgc.set_backend(net, "masked")
    found = []
    for seed in range(20):
        x = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        with Kinks() as kinks, torch.no_grad():
            copy.deepcopy(net)(x.double())
        found.append((kinks.least, seed, x))
    least, _, x = max(found)
    assert least > 1e-5, least
    return x


def network_gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Loss, all gradients, then all buffers."""
    x = x.clone().requires_grad_()
    net.zero_grad()
    labels = torch.arange(len(x)) % 5
    loss = F.cross_entropy(net(x), labels) + 1e-2 * dgc.gate_l1(net)
    loss.backward()
    assert x.grad is not None
    return [loss.detach(), x.grad, *(p.grad for p in net.parameters()), *net.buffers()]  # type: ignore[list-item]


@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_a_block_over_one_buffer_has_the_oracles_gradients(progress: float) -> None:
    net = block_net(progress)
    oracle = copy.deepcopy(net).double()
    dgc.set_backend(oracle, "masked")
    x = clear_images(progress)
    names = graph_names(net, x)
    assert "_BlockBackward" in names
    assert "NativeLayerBackward" not in names
    net = block_net(progress)
    same(network_gradients(net, x), network_gradients(oracle, x.double()))


def graph_names(net: nn.Module, x: Tensor) -> set[str]:
    """The kinds of steps in the backward graph of a network."""
    y = net(x)  # held: a step of Python lives as long as what it made, to PyTorch 2.10
    found, ahead = set(), [y.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and type(node).__name__ not in found | {"AccumulateGrad"}:
            found.add(type(node).__name__)
            ahead += [n for n, _ in node.next_functions]
    return found


WATCHED: list[tuple[str, Callable[[nn.Module], object]]] = [
    (
        "a hook",
        lambda net: net.features.denseblock_1[0].conv_1.register_forward_hook(lambda *_: None),
    ),
    ("a frozen norm", lambda net: net.features.denseblock_1[1].conv_1.norm.eval()),
    ("another backend", lambda net: dgc.set_backend(net.features.denseblock_1[2], "plain")),
    (
        "another norm",
        lambda net: setattr(net.features.denseblock_1[0].conv_1, "norm", nn.InstanceNorm2d(16)),
    ),
]


@pytest.mark.parametrize(("why", "change"), WATCHED, ids=[why for why, _ in WATCHED])
def test_a_block_goes_layer_by_layer_where_somebody_looks_into_it(
    why: str, change: Callable[[nn.Module], object]
) -> None:
    net = block_net().features.denseblock_1  # type: ignore[union-attr]
    holder = nn.Module()
    holder.features = nn.Module()
    holder.features.denseblock_1 = net
    change(holder)
    x = torch.randn(4, 16, 8, 8)
    oracle = copy.deepcopy(net).double()
    dgc.set_backend(oracle, "masked")
    names = graph_names(net, x)
    assert "_BlockBackward" not in names
    assert "CatBackward0" in names
    same([copy.deepcopy(net)(x).detach()], [oracle(x.double()).detach()])


def test_a_network_keeps_a_fifth_of_what_its_dense_twin_keeps() -> None:
    x = torch.randn(2, 3, 16, 16)
    kept = {}
    for form in ("dgc", "dense"):
        net = dgc.create_model(
            "dydensenet", stages=(14, 14), growth=(8, 16), num_classes=5, form=form
        ).train()
        dgc.set_progress(net, 0.9)
        kept[form] = saved_bytes(net, lambda net=net: net(x))
    assert kept["dgc"] < 0.22 * kept["dense"]


# ---- what else must hold -------------------------------------------------------------------------


def test_the_same_threads_give_the_same_bits_and_other_threads_nearly() -> None:
    net, x = block_net(), torch.randn(7, 3, 16, 16)
    before, found = torch.get_num_threads(), {}
    try:
        for run, threads in enumerate((1, 1, 2, 2, 3)):
            torch.set_num_threads(threads)
            found[run, threads] = network_gradients(copy.deepcopy(net), x)
    finally:
        torch.set_num_threads(before)
    for a, b in (((0, 1), (1, 1)), ((2, 2), (3, 2))):
        assert all(torch.equal(p, q) for p, q in zip(found[a], found[b], strict=True))
    same(found[4, 3], [t.double() for t in found[0, 1]], 1e-5)


@pytest.mark.parametrize("change", ["double", "channels_last", "autocast", "plain"])
def test_what_the_kernels_do_not_know_takes_plain_pytorch(change: str) -> None:
    layer, x = DynamicGroupConv2d(16, 32, 3, padding=1), torch.randn(2, 16, 9, 9)
    if change == "double":
        layer, x = layer.double(), x.double()
    if change == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    if change == "plain":
        dgc.set_backend(layer, "plain")
    with torch.autocast("cpu", enabled=change == "autocast"):
        y = layer(x)
    assert "FusedLayer" in type(y.grad_fn).__name__


def test_without_kernels_everything_is_plain_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clear_images()
    with_kernels = network_gradients(block_net(), x)
    monkeypatch.setattr(library, "load", lambda: None)
    net = block_net()
    assert not {"_BlockBackward", "NativeLayerBackward", "NativeStaticBackward"} & graph_names(
        block_net(), x
    )
    same(network_gradients(net, x), [t.double() for t in with_kernels])
    assert library.in_use() == "none"


def test_a_backend_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(
        dgc.errors.ArgumentError,
        match="backend='fast': one of auto, native, plain, masked, gathered, triton",
    ):
        dgc.set_backend(block_net(), "fast")  # type: ignore[arg-type]


def test_names_of_the_functions_are_what_the_tests_look_for() -> None:
    assert NativeLayer.__name__ == "NativeLayer"
    assert NativeStatic.__name__ == "NativeStatic"
    assert support.is_supported(torch.randn(2, 3, 4, 4))
