"""The backward written by hand is the derivative of the forward, and that of the slow oracle,
everywhere it can go.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dgc.layers import DynamicGroupConv2d
from dgc.layers.static import norm_relu_conv, norm_relu_pool


def random_layer(seed: int = 0, n: int = 0, **numbers: int | float | bool) -> DynamicGroupConv2d:
    torch.manual_seed(seed)
    layer = DynamicGroupConv2d(**numbers).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        layer.fc2_bias.copy_(torch.rand_like(layer.fc2_bias))
        if isinstance(layer.norm, nn.BatchNorm2d):
            layer.norm.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
            layer.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    layer.set_inactive(n)
    return layer


def gradients(
    layer: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None
) -> list[Tensor]:
    """Output, then the gradients of x and of every parameter, for a fixed random loss and the gate
    L1.
    """
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = (call or layer)(x)
    loss = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).sin()).sum()
    gate_l1 = sum(m.gate_l1 for m in layer.modules() if isinstance(m, DynamicGroupConv2d))
    (loss + 0.3 * gate_l1).backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]  # type: ignore[list-item]


def assert_same(ours: list[Tensor], oracle: list[Tensor], tolerance: float = 1e-9) -> None:
    for a, b in zip(ours, oracle, strict=True):
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance * max(1.0, b.abs().max().item())
        )


def against_oracle(layer: DynamicGroupConv2d, x: Tensor) -> None:
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    assert_same(gradients(layer, x), gradients(oracle, x))


SHAPES = st.tuples(
    st.sampled_from([1, 2, 4, 8]),  # heads
    st.integers(1, 5),  # input channels a head
    st.integers(1, 3),  # outputs a head
    st.sampled_from([1, 3, 5]),  # kernel
    st.integers(1, 3),  # stride
    st.integers(0, 2),  # padding
    st.integers(1, 2),  # dilation
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=SHAPES,
    off=st.floats(0, 0.99),
    size=st.integers(9, 12),
    training=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape_agrees_with_the_oracle(
    shape: tuple[int, ...], off: float, size: int, training: bool, bias: bool, seed: int
) -> None:
    heads, c, j, *rest = shape
    n = int(off * heads * c)
    window = dict(zip(("kernel_size", "stride", "padding", "dilation"), rest, strict=True))
    numbers = {"in_channels": heads * c, "out_channels": heads * j, "heads": heads}
    layer = random_layer(seed, n, **window, **numbers, gate_factor=1.0, bias=bias)
    against_oracle(layer.train(training), torch.randn(3, heads * c, size, size + 1).double())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kernel", "n", "bias"),
    [(1, 0, True), (1, 3, False), (1, 6, True), (3, 0, False), (3, 6, False), (3, 3, True)],
)
def test_gradcheck(kernel: int, n: int, bias: bool, training: bool) -> None:
    numbers = {"in_channels": 8, "out_channels": 4, "kernel_size": kernel, "padding": kernel // 2}
    layer = random_layer(3, n, **numbers, heads=2, bias=bias)
    layer.train(training)
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))
        return y, layer.gate_l1

    x = torch.randn(2, 8, 3, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(
        call, (x, *(p.detach().requires_grad_() for p in layer.parameters()))
    )


@pytest.mark.parametrize("wide", [False, True], ids=["1x1", "3x3 sample by sample"])
def test_many_channels_take_the_gathering_ways(wide: bool) -> None:
    kernel = 3 if wide else 1
    layer = random_layer(
        1, 80, in_channels=96, out_channels=8, kernel_size=kernel, padding=kernel // 2
    )
    against_oracle(layer, torch.randn(2, 96, 9, 9).double())
    layer.set_inactive(0)
    against_oracle(layer, torch.randn(2, 96, 9, 9).double())


@pytest.mark.parametrize("n", [0, 12])
def test_all_gates_zero_give_zero_output_and_no_gate_gradient(n: int) -> None:
    layer = random_layer(2, n, in_channels=16, out_channels=8)
    with torch.no_grad():
        layer.fc2.zero_()
        layer.fc2_bias.fill_(-1)
    y, grad_x, *_ = gradients(layer, torch.randn(2, 16, 4, 4).double())
    assert not y.any()
    assert not grad_x.any()
    assert not any(p.grad.any() for p in (layer.fc1, layer.fc2, layer.fc2_bias, layer.weight))  # type: ignore[union-attr]


def test_equal_gates_are_all_switched_off() -> None:
    layer = random_layer(2, 1, in_channels=16, out_channels=8)
    with torch.no_grad():
        layer.fc2.zero_()
        layer.fc2_bias.fill_(1)
    y, *_ = gradients(layer, torch.randn(2, 16, 4, 4).double())
    assert not y.any(), "g <= t becomes 0, ties included"


def test_nan_stays_in_its_sample_in_every_way() -> None:
    for kernel in (1, 3):
        layer = random_layer(
            4, 48, in_channels=64, out_channels=8, kernel_size=kernel, padding=kernel // 2
        ).eval()
        x = torch.randn(3, 64, 9, 9).double()
        clean = layer(x)
        x[1, 5, 2, 2] = torch.nan
        for backend in ("auto", "masked", "gathered"):
            layer.backend = backend  # type: ignore[assignment]
            y = layer(x)
            assert y[1].isnan().all()
            torch.testing.assert_close(y[[0, 2]], clean[[0, 2]])


def test_a_frozen_norm_inside_training() -> None:
    layer = random_layer(5, 6, in_channels=8, out_channels=8).train()
    layer.norm.eval()  # type: ignore[union-attr]
    before = copy.deepcopy(layer.norm.state_dict())  # type: ignore[union-attr]
    against_oracle(layer, torch.randn(2, 8, 5, 5).double())
    for key, value in layer.norm.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, before[key])


def test_parts_that_need_no_gradient_get_none() -> None:
    layer = random_layer(6, 6, in_channels=8, out_channels=8)
    layer.weight.requires_grad_(False)
    layer.norm.weight.requires_grad_(False)  # type: ignore[union-attr]
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    x = torch.randn(2, 8, 5, 5).double()
    for net in (layer, oracle):
        net(x).square().sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.fc1.grad, oracle.fc1.grad)


def test_one_layer_used_twice_in_a_network() -> None:
    layer = random_layer(7, 6, in_channels=8, out_channels=8)
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    x = torch.randn(2, 8, 5, 5).double()
    assert_same(*(gradients(net, x, lambda v, net=net: net(net(v))) for net in (layer, oracle)))


def test_a_norm_in_front_is_part_of_the_one_copy() -> None:
    layer, before = (
        random_layer(8, 40, in_channels=64, out_channels=8, kernel_size=3, padding=1),
        nn.BatchNorm2d(64),
    )
    pair = nn.ModuleList([layer, before.double()])
    oracle = copy.deepcopy(pair)
    oracle[0].backend = "masked"
    x = torch.randn(2, 64, 8, 8).double()
    ours, theirs = (
        gradients(p, x, lambda v, p=p: p[0](v, input_norm=p[1])) for p in (pair, oracle)
    )
    assert_same(ours, theirs)
    torch.testing.assert_close(pair[1].running_var, oracle[1].running_var)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("out", [4, 32])
def test_static_convolution_and_pooling_with_remade_activations(out: int, training: bool) -> None:
    torch.manual_seed(0)
    norm, conv = (
        nn.BatchNorm2d(8).double().train(training),
        nn.Conv2d(8, out, 3, 1, 1, groups=4, bias=False).double(),
    )
    pool, relu = nn.MaxPool2d(3, 2, 1), nn.ReLU()
    net = nn.ModuleList([norm, conv])
    plain = copy.deepcopy(net)
    x = torch.randn(3, 8, 7, 7).double()

    def ours(v: Tensor) -> Tensor:
        return norm_relu_conv(norm, conv, v).mean() + norm_relu_pool(norm, relu, pool, v)

    def theirs(v: Tensor) -> Tensor:
        return plain[1](plain[0](v).relu()).mean() + pool(plain[0](v).relu())

    assert_same(gradients(net, x, ours), gradients(plain, x, theirs))
    torch.testing.assert_close(norm.running_var, plain[0].running_var)
    assert norm.num_batches_tracked == plain[0].num_batches_tracked
