"""The layer in other people's networks: arguments, schedule, state, precision, memory layout, other
norms.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import dgc
from dgc import DynamicGroupConv2d
from dgc.bench.peak_memory import saved_bytes
from dgc.errors import ArgumentError, ExitCode, UsageError
from dgc.layers.backend import Backend
from dgc.schedule import inactive_channels


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), DynamicGroupConv2d(16, 32), DynamicGroupConv2d(32, 8, 3, 2, 1, heads=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


BAD = [
    ({"in_channels": 0}, "in_channels=0 must be an integer >= 1"),
    ({"out_channels": 2.5}, "out_channels=2.5 must be an integer >= 1"),
    ({"kernel_size": (3, 3)}, "kernel_size=(3, 3) must be an integer >= 1"),
    ({"stride": 0}, "stride=0 must be an integer >= 1"),
    ({"padding": -1}, "padding=-1 must be an integer >= 0"),
    ({"dilation": True}, "dilation=True must be an integer >= 1"),
    ({"heads": 3}, "in_channels=16 is no multiple of heads=3"),
    ({"in_channels": 15, "heads": 5}, "out_channels=32 is no multiple of heads=5"),
    ({"squeeze_rate": 0}, "squeeze_rate=0 must be an integer >= 1"),
    (
        {"gate_factor": 1.5},
        "gate_factor=1.5 must be a number in (0, 1], the share of channels that is kept",
    ),
    (
        {"gate_factor": 0},
        "gate_factor=0 must be a number in (0, 1], the share of channels that is kept",
    ),
    ({"gate_factor": 0.01}, "gate_factor=0.01 keeps no channel of in_channels=16"),
]


@pytest.mark.parametrize(("change", "line"), BAD, ids=[line for _, line in BAD])
def test_a_bad_argument_is_quoted_with_what_is_allowed(
    change: dict[str, object], line: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        DynamicGroupConv2d(**{"in_channels": 16, "out_channels": 32, **change})  # type: ignore[arg-type]
    assert str(caught.value) == line
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("n", [-1, 16])
def test_the_number_of_inactive_channels_has_bounds(n: int) -> None:
    with pytest.raises(ValueError, match=f"n={n} inactive channels: 0 to 15 of in_channels=16"):
        DynamicGroupConv2d(16, 32).set_inactive(n)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_progress_has_bounds(p: float) -> None:
    with pytest.raises(ValueError, match="progress is a number from 0"):
        dgc.set_progress(small_net(), p)


def test_gate_l1_before_any_forward_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="run the model on a batch first"):
        dgc.gate_l1(small_net())


def test_it_takes_the_place_of_a_convolution() -> None:
    layer, conv = DynamicGroupConv2d(16, 32, 3, 2, 1, 2), nn.Conv2d(16, 32, 3, 2, 1, 2)
    x = torch.randn(2, 16, 11, 14)
    assert layer(x).shape == conv(x).shape


def test_the_schedule_comes_from_outside_and_two_models_never_meet() -> None:
    first, second = small_net(), small_net()
    for p in (0.0, 0.05, 1 / 12, 0.2, 0.5, 0.75, 0.99):
        dgc.set_progress(first, p)
        for _, layer in dgc.iter_dgc(first):
            n = inactive_channels(p, layer.in_channels, layer.gate_factor)
            assert (layer.n_inactive, layer.inactive_channels.item()) == (n, n)
            assert layer.n_traced <= n
        assert all(layer.n_inactive == 0 for _, layer in dgc.iter_dgc(second))
    assert [name for name, _ in dgc.iter_dgc(first)] == ["1", "2"]


def test_a_compiled_graph_is_specialised_a_few_times_only() -> None:
    net, seen = small_net(), set()
    for step in range(1000):
        dgc.set_progress(net, step / 1000)
        seen.add(tuple(layer.n_traced for _, layer in dgc.iter_dgc(net)))
    assert len(seen) <= 6
    assert all(layer.n_traced == layer.n_inactive for _, layer in dgc.iter_dgc(net))


def test_gate_l1_is_the_mean_gate_of_every_head_summed() -> None:
    layer = DynamicGroupConv2d(16, 32)
    x = torch.randn(4, 16, 5, 5)
    gates = layer.gates(torch.relu(copy.deepcopy(layer.norm)(x)))  # type: ignore[misc]
    layer.set_inactive(12)
    layer(x)
    torch.testing.assert_close(dgc.gate_l1(layer), sum(gates[:, head].mean() for head in range(4)))
    assert dgc.gate_l1(nn.Linear(2, 2)).item() == 0


def test_state_dict_brings_n_along() -> None:
    source, target = small_net(), small_net()
    dgc.set_progress(source, 1.0)
    target.load_state_dict(source.state_dict())
    assert [layer.n_inactive for _, layer in dgc.iter_dgc(target)] == [12, 24]
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(source.eval()(x), target.eval()(x))


@pytest.mark.parametrize("value", [3.5, -1.0, 16.0, float("nan")])
def test_a_stored_n_that_cannot_be_is_refused(value: float) -> None:
    layer = DynamicGroupConv2d(16, 32)
    state = layer.state_dict() | {"inactive_channels": torch.tensor([value])}
    with pytest.raises(
        (RuntimeError, ValueError), match=r"inactive_channels is .* whole number from 0 to 15"
    ):
        layer.load_state_dict(state)


def test_it_can_be_copied_and_pickled_right_after_a_forward() -> None:
    net = small_net()
    dgc.set_progress(net, 1.0)
    y = net.train()(torch.randn(2, 3, 8, 8))
    dgc.gate_l1(net)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert [layer.n_inactive for _, layer in dgc.iter_dgc(twin)] == [12, 24]
        assert torch.equal(twin.eval()(torch.ones(1, 3, 8, 8)), net.eval()(torch.ones(1, 3, 8, 8)))
    y.sum().backward()


def test_records_count_the_choices_and_stop_when_closed() -> None:
    net = small_net().eval()
    dgc.set_progress(net, 1.0)
    with torch.no_grad(), dgc.record_gates(net) as records:
        for _ in range(3):
            net(torch.randn(4, 3, 8, 8))
    net(torch.randn(4, 3, 8, 8))
    assert list(records) == ["1", "2"]
    for (_, layer), record in zip(dgc.iter_dgc(net), records.values(), strict=True):
        assert record.samples == 12
        assert record.selected.shape == (layer.heads, layer.in_channels)
        assert (record.selected.sum(1) <= 12 * (layer.in_channels - layer.n_inactive)).all()
        assert record.selected.sum() > 0
        assert ((record.share() >= 0) & (record.share() <= 1)).all()
        assert layer.gate_record is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_autocast_trains_in_low_precision_with_full_precision_gates(
    p: float, dtype: torch.dtype
) -> None:
    net = small_net()
    dgc.set_progress(net, p)
    x = torch.randn(4, 3, 8, 8)
    with torch.autocast("cpu", dtype):
        y = net(x)
        loss = y.float().square().mean() + 1e-3 * dgc.gate_l1(net)
    assert y.dtype == dtype
    assert dgc.gate_l1(net).dtype == torch.float32
    loss.backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_autocast_stays_near_full_precision(p: float) -> None:
    net = small_net()
    dgc.set_progress(net, p)
    grads = []
    for enabled in (False, True):
        copied = copy.deepcopy(net)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = copied[:2](torch.ones(4, 3, 8, 8) * torch.arange(4)[:, None, None, None])
        y.float().square().mean().backward()
        grads.append(copied[1].weight.grad)
    assert (grads[0] - grads[1]).norm() < 0.05 * grads[0].norm()


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_channels_last_gives_the_same(p: float) -> None:
    net, x = small_net(), torch.randn(4, 3, 9, 9)
    dgc.set_progress(net, p)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    results = []
    for model, images in ((net, x), (last, x.contiguous(memory_format=torch.channels_last))):
        y = model(images)
        y.square().sum().backward()
        results.append((y, [p.grad for p in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0])
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["sync", "group", "hooked", "cumulative", "untracked", "plain"])
def test_other_norms_in_its_place_work_and_are_called(norm: str) -> None:
    layer = DynamicGroupConv2d(16, 32)
    layer.set_inactive(12)
    calls: list[int] = []
    if norm == "sync":
        layer.norm = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(16)).eval()
    elif norm == "group":
        layer.norm = nn.GroupNorm(4, 16)
    elif norm == "hooked":
        layer.norm.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    elif norm != "plain":
        layer.norm = nn.BatchNorm2d(
            16,
            **{"cumulative": {"momentum": None}, "untracked": {"track_running_stats": False}}[norm],
        )
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    x = torch.randn(3, 16, 5, 5)
    torch.testing.assert_close(layer(x), oracle(x))
    for ours, theirs in zip(layer.state_dict().values(), oracle.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert len(calls) == (2 if norm == "hooked" else 0)


def test_without_a_norm_the_input_is_taken_as_it_is() -> None:
    layer = DynamicGroupConv2d(16, 32, norm=False)
    layer.set_inactive(12)
    assert not any("norm" in key for key in layer.state_dict())
    x = torch.randn(2, 16, 5, 5)
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    torch.testing.assert_close(layer(x), oracle(x))


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_at_most_one_copy_is_kept_for_all_heads(kernel: int, p: float) -> None:
    layer = DynamicGroupConv2d(64, 64, kernel, padding=kernel // 2)
    dgc.set_progress(layer, p)
    x = torch.randn(2, 64, 32, 32, requires_grad=True)
    one_copy = x.numel() * 4
    assert saved_bytes(layer, lambda: layer(x)) < 1.1 * one_copy
    layer.backend = "masked"
    assert saved_bytes(layer, lambda: layer(x)) > 4 * one_copy, "the oracle keeps one copy a head"


def test_the_forward_reads_nothing_back_from_the_device() -> None:
    """On the meta device any read of a value raises."""
    net = small_net()
    dgc.set_progress(net, 0.9)
    assert net.to("meta").train()(torch.empty(2, 3, 8, 8, device="meta")).shape == (2, 5)


def test_a_single_value_per_channel_is_refused_in_training_as_by_batch_norm() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        DynamicGroupConv2d(16, 32).train()(torch.randn(1, 16, 1, 1))


@pytest.mark.parametrize("backend", ["auto", "plain", "masked"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("norm", [False, True])
def test_an_empty_batch_gives_an_empty_answer(backend: Backend, kernel: int, *, norm: bool) -> None:
    """As every convolution of PyTorch does: the last part of a filtered batch may hold none."""
    for stride, progress in ((1, 0.0), (2, 0.0), (1, 1.0), (2, 1.0)):
        layer = DynamicGroupConv2d(
            16, 32, kernel, stride, kernel // 2, norm=norm, bias=True, backend=backend
        )
        dgc.set_progress(layer, progress)
        for training in (False, True):
            x = torch.zeros(0, 16, 8, 8, requires_grad=True)
            y = layer.train(training)(x)
            assert y.shape == (0, 32, 8 // stride, 8 // stride)
            y.sum().backward()
            assert x.grad is not None
            with torch.inference_mode():
                assert layer(x.detach()).shape == y.shape
