"""What stands around the convolutions in training, by the C++ kernels: pools, means and residual
blocks against PyTorch and the oracle in float64; and where they are left to plain PyTorch.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dgc
from dgc.kernels.cpu import library, train_passes
from dgc.kernels.cpu.norm_call import turned
from dgc.layers import block_dispatch
from dgc.layers.static import norm_relu_pool, window_means
from tests.unit.test_layers_gradients import gradients
from tests.unit.test_native_training import ISAS, Kinks, graph_names, network_gradients, same

pytestmark = pytest.mark.skipif(
    not train_passes.available(), reason="the kernels were not built: no C++ compiler"
)

POOLS = [
    (nn.MaxPool2d(3, 2, 1), "NativeMaxPool"),
    (nn.MaxPool2d(2), "NativeMaxPool"),
    (nn.MaxPool2d(5, 3, 2), "NativeMaxPool"),
    (nn.AdaptiveAvgPool2d(1), "NativePlaneMean"),
    (nn.MaxPool2d(3, 2, 1, dilation=2), "_NormReluPool"),
    (nn.MaxPool2d((3, 2), 2), "_NormReluPool"),
    (nn.MaxPool2d(3, 2, ceil_mode=True), "_NormReluPool"),
    (nn.AvgPool2d(2), "_NormReluPool"),
]
REFUSED = [
    (nn.MaxPool2d(2, 2, 2), "pad should be at most half"),
    (nn.MaxPool2d(2, 0), "stride should not be zero"),
    (nn.MaxPool2d(12), "Output size is too small"),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("pool", "name"), POOLS, ids=[str(pool) for pool, _ in POOLS])
def test_norm_relu_and_a_pool_agree_with_pytorch_in_float64(
    pool: nn.Module, name: str, training: bool, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library.FORCE, isa)
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).double().train(training)
    nn.init.normal_(norm.weight)  # below zero, too
    nn.init.normal_(norm.bias)
    ours = copy.deepcopy(norm).float()
    for size in ((9, 11), (7, 34)):
        x = torch.randn(2, 3, *size).double()

        def kernels(v: Tensor) -> Tensor:
            return norm_relu_pool(ours, nn.ReLU(), pool, v)

        assert name in type(kernels(x.float()).grad_fn).__name__
        ours.load_state_dict(norm.state_dict())
        found = gradients(ours, x.float(), kernels)
        same(found, gradients(norm, x, lambda v: pool(torch.relu(norm(v)))), 2e-5)
        torch.testing.assert_close(ours.running_var.double(), norm.running_var)


@pytest.mark.parametrize(("pool", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_pool_that_pytorch_refuses_is_refused(pool: nn.Module, words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        norm_relu_pool(nn.BatchNorm2d(2), nn.ReLU(), pool, torch.randn(2, 2, 9, 9))


def test_equal_maxima_go_to_the_first_and_zeros_hear_nothing() -> None:
    norm, pool = nn.BatchNorm2d(1).eval(), nn.MaxPool2d(3, 2, 1)
    x = torch.tensor([[0.0, 2, 1, 2], [2, 0, 2, 0], [0, 0, -1, 0], [0, -1, 0, 0]])
    found = []
    for kernels in (True, False):
        v = x.clone()[None, None].requires_grad_()
        norm_relu_pool(norm, nn.ReLU(), pool, v, kernels=kernels).sum().backward()
        assert v.grad is not None
        found.append(v.grad)
    assert torch.equal(found[0] != 0, found[1] != 0)
    torch.testing.assert_close(*found)
    assert found[0][0, 0, 3].tolist() == [0, 0, 0, 0]


def test_a_pool_shows_nan_where_it_is() -> None:
    x = torch.randn(2, 2, 9, 9)
    x[1, 0, 4, 4] = torch.nan
    y = norm_relu_pool(nn.BatchNorm2d(2).eval(), nn.ReLU(), nn.MaxPool2d(3, 2, 1), x)
    assert y.isnan().nonzero().tolist() == [[1, 0, 2, 2]]


@pytest.mark.parametrize("k", [2, 3])
def test_means_of_windows_are_pytorchs_to_the_last_bit(k: int) -> None:
    x, pool = torch.randn(2, 3, 9, 13), nn.AvgPool2d(k)
    assert "NativeMeanPool" in type(window_means(pool, x.requires_grad_()).grad_fn).__name__
    found = [
        gradients(nn.Module(), x.detach(), call) for call in (lambda v: window_means(pool, v), pool)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    "pool", [nn.AvgPool2d(2, 1), nn.AvgPool2d(2, padding=1), nn.AvgPool2d((2, 3))], ids=str
)
def test_other_means_are_pytorchs_own(pool: nn.AvgPool2d) -> None:
    x = torch.randn(2, 3, 9, 13, requires_grad=True)
    assert "NativeMeanPool" not in type(window_means(pool, x).grad_fn).__name__


def test_matrices_are_turned() -> None:
    for shape in ((1, 1, 1), (3, 37, 50), (2, 16, 288)):
        x = torch.randn(shape)
        assert torch.equal(turned(x), x.transpose(1, 2))


# ---- a residual block ----------------------------------------------------------------------------


def residual_net(progress: float = 0.9) -> nn.Module:
    torch.manual_seed(0)
    net = dgc.create_model("dyresnet18", stem="cifar", num_classes=5).train()
    net = nn.Sequential(net.layer1[0], net.layer2[0])  # as it is, and with downsampling
    dgc.set_progress(net, progress)
    return net


class Pooled(nn.Module):
    """Blocks with logits behind them."""

    def __init__(self, progress: float = 0.9) -> None:
        super().__init__()
        self.blocks = residual_net(progress)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(x).mean((2, 3))[:, :5]
        return y


@functools.cache
def clear_input(progress: float) -> Tensor:
    """As test_native_training.clear_images: float32 and float64 on the same side of every kink."""
    net = Pooled(progress).double()
    dgc.set_backend(net, "masked")
    found = []
    for seed in range(24):
        x = torch.randn(3, 64, 6, 7, generator=torch.Generator().manual_seed(seed))
        with Kinks() as kinks, torch.no_grad():
            copy.deepcopy(net)(x.double())
        found.append((kinks.least, seed, x))
    least, _, x = max(found)
    assert least > 2e-6, least
    return x


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("progress", [0.0, 0.9])
def test_a_residual_block_has_the_oracles_gradients(
    progress: float, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(library.FORCE, isa)
    net, x = Pooled(progress), clear_input(progress)
    oracle = copy.deepcopy(net).double()
    dgc.set_backend(oracle, "masked")
    names = graph_names(copy.deepcopy(net), x)
    assert "_BasicBlockBackward" in names
    assert "NativeLayerBackward" not in names
    same(network_gradients(net, x), network_gradients(oracle, x.double()))


WATCHED: list[tuple[str, Callable[[nn.Module], object]]] = [
    ("a hook", lambda block: block.conv1.register_forward_hook(lambda *_: None)),
    ("a frozen norm", lambda block: block.bn2.eval()),
    ("another backend", lambda block: dgc.set_backend(block.conv2, "plain")),
    ("another norm", lambda block: setattr(block, "bn1", nn.InstanceNorm2d(64))),
    ("evaluation", lambda block: block.eval()),
    ("a convolution in a place", lambda block: setattr(block, "conv2", plain_conv())),
    ("an identity of one's own", lambda block: setattr(block, "downsample", nn.Tanh())),
]


def plain_conv() -> nn.Module:
    torch.manual_seed(1)
    return nn.Conv2d(64, 64, 3, padding=1)


@pytest.mark.parametrize(("why", "change"), WATCHED, ids=[why for why, _ in WATCHED])
def test_a_residual_block_goes_layer_by_layer_where_somebody_looks_into_it(
    why: str, change: Callable[[nn.Module], object]
) -> None:
    block = residual_net()[0]
    change(block)
    oracle, x = copy.deepcopy(block).double(), torch.randn(4, 64, 5, 5)
    dgc.set_backend(oracle, "masked")
    assert "_BasicBlockBackward" not in graph_names(copy.deepcopy(block), x)
    same([block(x).detach()], [oracle(x.double()).detach()])


def test_two_trainings_on_as_many_threads_have_the_same_bits() -> None:
    x, before, found = torch.randn(5, 64, 7, 7), torch.get_num_threads(), []
    try:
        for threads in (2, 2, 3):
            torch.set_num_threads(threads)
            found.append(network_gradients(Pooled(), x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    same(found[2], [t.double() for t in found[0]], 1e-5)


def test_a_batch_of_one_value_a_channel_is_refused_in_pytorchs_words() -> None:
    block = residual_net()[1]
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        F.relu(block(torch.randn(1, 64, 2, 2)))


MISFITS: list[tuple[str, Callable[[nn.Module], object]]] = [
    ("another width", lambda block: setattr(block.conv1, "in_channels", 60)),
    ("a norm of another width", lambda block: setattr(block, "bn2", nn.BatchNorm2d(60))),
    ("another stride", lambda block: setattr(block.conv2, "stride", 2)),
]


@pytest.mark.parametrize(("why", "change"), MISFITS, ids=[why for why, _ in MISFITS])
def test_sizes_that_do_not_fit_never_reach_the_kernels(
    why: str, change: Callable[[nn.Module], object]
) -> None:
    block, x = residual_net()[0], torch.randn(4, 64, 6, 6)
    assert whole(block, x)
    change(block)
    assert not whole(block, x)
    assert not whole(residual_net()[0], torch.randn(4, 60, 6, 6))


def whole(block: nn.Module, x: Tensor) -> bool:
    call = block_dispatch.ResidualCall(block, block.branches, x)  # type: ignore[arg-type]
    return block_dispatch.whole_residual(call)
