"""The bias of a layer: the same numbers as without it, plus one an output channel, in every way."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.kernels import cpu
from dgc.layers import DynamicGroupConv2d, macs
from dgc.layers.backend import Backend


def pair(kernel: int, *, norm: bool, n: int) -> tuple[DynamicGroupConv2d, DynamicGroupConv2d]:
    """The same layer with a bias and without, in float32."""
    torch.manual_seed(0)
    with_bias = DynamicGroupConv2d(16, 12, kernel, 1, kernel // 2, norm=norm, bias=True)
    torch.nn.init.uniform_(with_bias.fc2_bias, 0.5, 1.5)
    assert with_bias.bias is not None
    torch.nn.init.uniform_(with_bias.bias, -1, 1)
    without = DynamicGroupConv2d(16, 12, kernel, 1, kernel // 2, norm=norm)
    state = {key: value for key, value in with_bias.state_dict().items() if key != "bias"}
    without.load_state_dict(state, strict=True)
    for layer in (with_bias, without):
        layer.set_inactive(n)
    return with_bias, without


def after_a_step(layer: DynamicGroupConv2d, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    assert x.grad is not None
    grads = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return y.detach(), grads | {"x": x.grad}


@pytest.mark.parametrize("backend", ["auto", "plain", "masked", "gathered"])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_bias_adds_its_numbers_and_changes_no_other_bit(
    kernel: int, norm: bool, backend: Backend
) -> None:
    with_bias, without = pair(kernel, norm=norm, n=8)
    for layer in (with_bias, without):
        layer.backend = backend
    x = torch.randn(2, 16, 9, 9)
    (y, grads), (plain, others) = after_a_step(with_bias, x), after_a_step(without, x)
    assert with_bias.bias is not None
    assert torch.equal(y, plain + with_bias.bias.detach()[:, None, None])
    wanted = torch.linspace(-1, 1, y.numel()).view_as(y).sum((0, 2, 3))
    torch.testing.assert_close(grads.pop("bias"), wanted)
    assert grads.keys() == others.keys()
    assert all(torch.equal(grads[name], others[name]) for name in others)


@pytest.mark.skipif(not cpu.available(), reason="the kernels were not built: no C++ compiler")
@pytest.mark.parametrize("behind", ["nothing", "norm"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_the_engine_adds_the_bias(kernel: int, behind: str) -> None:
    layer, _ = pair(kernel, norm=False, n=8)
    net = nn.Sequential(layer, nn.BatchNorm2d(12) if behind == "norm" else nn.Identity()).eval()
    if isinstance(net[1], nn.BatchNorm2d):
        nn.init.uniform_(net[1].running_mean, -1, 1)  # type: ignore[arg-type]
    x = torch.randn(3, 16, 20, 20)
    with torch.inference_mode():
        torch.testing.assert_close(dgc.compile_for_inference(net)(x), net(x), rtol=1e-4, atol=1e-4)


def test_a_bias_is_counted_and_copied() -> None:
    with_bias, without = pair(3, norm=True, n=0)
    ours, plain = (macs.count(layer, 8, 16) for layer in (with_bias, without))
    assert (ours.params, ours.dense) == (plain.params + 12, plain.dense + 12 * 64)
    assert ours.promised == plain.promised + 12 * 64
    twin = copy.deepcopy(with_bias)
    assert torch.equal(twin.state_dict()["bias"], with_bias.state_dict()["bias"])
