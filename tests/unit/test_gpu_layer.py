"""The functions for GPUs in PyTorch's own operations, run on a CPU: output, every gradient, running
statistics and the gates' L1 term against the same layer by dgc.layers.fused and the oracle.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.layers import DynamicGroupConv2d, dispatch, support
from dgc.layers.static import norm_relu_conv, norm_relu_pool
from tests.unit.test_layers_gradients import gradients, random_layer

ROWS = tuple(
    row._replace(needs=tuple(need for need in row.needs if need is not dispatch.on_cuda))
    for row in dispatch.DYNAMIC
    if row.algorithm in ("own_weights", "all_heads", "masked")
)


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "gpu_functions", lambda x, *, triton: not triton)
    monkeypatch.setattr(dispatch, "DYNAMIC", ROWS)
    dispatch._dynamic.cache_clear()
    yield  # type: ignore[misc]
    dispatch._dynamic.cache_clear()


SHAPES = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 1, "padding": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2},
    {"kernel_size": 1, "out_channels": 320},  # more outputs a head than pixels: all_heads
]


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("off", [0, 5, 11])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_layer_is_that_of_the_oracle(shape: dict[str, Any], training: bool, off: int) -> None:
    given = {"in_channels": 12, "out_channels": 8, "heads": 4, "gate_factor": 1.0} | shape
    layer = random_layer(3, off, **given).train(training)
    x = torch.randn(3, 12, 7, 6, dtype=torch.float64)
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    for one, other in zip(gradients(layer, x), gradients(oracle, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for one, other in zip(layer.buffers(), oracle.buffers(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("as_on_gpu")
def test_the_rule_between_the_two_counts_bytes() -> None:
    call = dispatch.LayerCall(
        "plain", 1, 0, 400, 300, True, True, "cuda", pixels=49, head_outputs=32
    )
    assert dispatch.dynamic(call).algorithm == "own_weights"
    assert dispatch.dynamic(call._replace(head_outputs=128)).algorithm == "all_heads"
    assert dispatch.dynamic(call._replace(kernel=3)).algorithm == "all_heads"


NETWORKS = {
    "dydensenet": {"stages": (2, 2), "growth": (8, 8), "num_classes": 4},
    "dyresnet18": {"num_classes": 4, "stem": "cifar"},
}


def _step(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Loss, gradients and buffers of a training step."""
    dgc.set_progress(net, 0.9)
    loss = net(x).square().mean() + 0.1 * dgc.gate_l1(net)
    loss.backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert len(grads) == len(list(net.parameters()))
    return [loss.detach(), *grads, *net.buffers()]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_step_of_a_network_is_that_of_plain_pytorch(
    name: str, channels_last: bool, request: pytest.FixtureRequest
) -> None:
    torch.manual_seed(0)
    net = dgc.create_model(name, **NETWORKS[name]).double().train()
    dgc.set_backend(net, "plain")
    twin, x = copy.deepcopy(net), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = _step(twin, x)
    request.getfixturevalue("as_on_gpu")
    if channels_last:
        net, x = (t.to(memory_format=torch.channels_last) for t in (net, x))  # type: ignore[assignment]
    for one, other in zip(_step(net, x), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-8)


@pytest.mark.usefixtures("as_on_gpu")
def test_what_nobody_asks_the_gradient_of_is_zero() -> None:
    layer = random_layer(0, 3, in_channels=12, out_channels=8, gate_factor=1.0)
    x = torch.randn(2, 12, 5, 5, dtype=torch.float64, requires_grad=True)
    layer(x)
    layer.gate_l1.backward()  # of the gates alone: nothing comes through the convolution
    assert layer.weight.grad is not None
    assert layer.weight.grad.count_nonzero() == 0
    assert layer.fc2_bias.grad is not None
    assert layer.fc2_bias.grad.count_nonzero() > 0
    layer.zero_grad()
    layer(x).sum().backward()  # of the convolution alone
    assert layer.weight.grad is not None
    assert layer.weight.grad.count_nonzero() > 0


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(3, 2, 1), nn.Identity()], ids=str)
def test_norm_relu_and_what_follows_are_the_modules(pool: nn.Module, training: bool) -> None:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(8).double().train(training)
    nn.init.uniform_(norm.weight, -1, 2)
    conv = nn.Conv2d(8, 4, 3, 1, 1, groups=2, bias=False).double()
    x = torch.randn(3, 8, 6, 6, dtype=torch.float64)

    def of(run: Any) -> list[Tensor]:
        norm_, conv_, leaf = copy.deepcopy(norm), copy.deepcopy(conv), x.clone().requires_grad_()
        y = run(norm_, conv_, leaf)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        grads = [p.grad for m in (norm_, conv_) for p in m.parameters() if p.grad is not None]
        return [y.detach(), leaf.grad, *grads, *norm_.buffers()]  # type: ignore[list-item]

    pairs = [
        (lambda n, c, t: norm_relu_conv(n, c, t), lambda n, c, t: c(n(t).relu())),
        (lambda n, c, t: norm_relu_pool(n, nn.ReLU(), pool, t), lambda n, c, t: pool(n(t).relu())),
    ]
    for ours, modules in pairs:
        for one, other in zip(of(ours), of(modules), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("as_on_gpu")
def test_half_precision_is_near_the_full_one() -> None:
    torch.manual_seed(0)
    layer = random_layer(0, 6, in_channels=12, out_channels=8, gate_factor=1.0).float()
    x = torch.randn(4, 12, 8, 8)
    full = gradients(copy.deepcopy(layer), x)
    with torch.autocast("cpu", torch.bfloat16):
        half = gradients(layer, x)
    for one, other in zip(half, full, strict=True):
        assert (one.float() - other.float()).norm() <= 0.05 * other.float().norm() + 1e-6


def test_all_layers_sum_their_gates_as_each_alone(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("as_on_gpu")
    net = nn.ModuleList(DynamicGroupConv2d(c, 8) for c in (8, 16))
    for layer in net:
        layer(torch.randn(2, layer.in_channels, 4, 4))  # type: ignore[operator]
    apart = sum(layer.gate_l1 for layer in net)  # type: ignore[misc]
    torch.testing.assert_close(dgc.gate_l1(net), apart)
