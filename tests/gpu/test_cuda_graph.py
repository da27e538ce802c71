"""On a GPU: train.compile: reduce-overhead. What is replayed is bit for bit what is run, whatever
changes from step to step; the trainer goes on with it exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.errors import UsageError
from dgc.run.paths import RunDir
from dgc.train.mixing import Mix
from dgc.train.optimizers import GuardedSGD
from dgc.train.seeding import set_switches
from dgc.train.step import Updater
from dgc.train.step_graph import WARM_UP, CudaCapturing, GraphUpdater
from tests.gpu.test_cuda import DEVICE, batch, updater
from tests.graph_runs import interrupted, trained, weights

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: the GPU path is run on it"
)
STEPS = 24


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """As recipes train."""
    set_switches(deterministic=True, threads=None)
    yield
    set_switches(deterministic=False, threads=None)


class CountingCapturing(CudaCapturing):
    """Counts captures and replays; with `captures=False` all steps run."""

    def __init__(self, *, captures: bool = True) -> None:
        super().__init__(DEVICE)
        self.captured, self.replayed, self._captures = 0, 0, captures

    def capture(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if not self._captures:
            return lambda: self.run(work)
        self.captured += 1
        replay = super().capture(work)

        def counted() -> Tensor:
            self.replayed += 1
            return replay()

        return counted


def graph_updater(
    network: str, backend: str, amp: str, capturing: Any, accumulate: int = 1
) -> Updater:
    plain = ordinary(network, backend, amp, accumulate)
    given = {name: getattr(plain, name) for name in Updater.__dataclass_fields__}
    return GraphUpdater(**given, capturing=capturing)


def ordinary(network: str, backend: str, amp: str, accumulate: int = 1) -> Updater:
    rule = updater(network, "dgc", amp, accumulate)
    dgc.set_backend(rule.module, backend)  # type: ignore[arg-type]
    return rule


def rows(
    rule: Updater, network: str, mixing: bool = False, steps: range = range(STEPS)
) -> list[Any]:
    """Every eighth batch is short; the rates are numbers that float32 holds exactly."""
    images, labels = batch(network)
    found = []
    for step in steps:
        count = 4 if step % 8 == 7 else 8
        mix = Mix(0.25 + step / 64, (0.4, 0.6) if step % 2 else None) if mixing else None
        rate, p = 2.0 ** -(6 + step % 3), step / STEPS
        given = images[:count].roll(step, 0), labels[:count].roll(step, 0)
        found.append(rule.step(*given, rate, p, count, mix if count == 8 else None).cpu())
    return found


def state(rule: Updater) -> list[Tensor]:
    optimizer = [t for kind in rule.optimizer.state.values() for t in kind.values()]
    tensors = [*rule.module.state_dict().values(), *optimizer, rule.optimizer.tripped]
    return [t.detach().cpu().clone() for t in tensors]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    pairs = list(enumerate(zip(one, other, strict=True)))
    # fp16 begins with gradients that overflow: their norm is no number, in both
    different = [n for n, (a, b) in pairs if not ((a == b) | (a.isnan() & b.isnan())).all()]
    largest = max((float((a.double() - b.double()).abs().max()) for _, (a, b) in pairs), default=0)
    assert not different, f"{len(different)} of {len(pairs)} differ, by {largest:.1e} at most"


CASES = [
    ("dydensenet", "auto", "off"),
    ("dydensenet", "triton", "off"),
    ("dydensenet", "auto", "bf16"),
    ("dydensenet", "triton", "bf16"),
    ("dydensenet", "auto", "fp16"),
    ("dydensenet", "triton", "fp16"),
    ("dyresnet18", "auto", "off"),
    ("dyresnet18", "auto", "bf16"),
    ("dyresnet18", "triton", "off"),
    ("dyresnet18", "triton", "bf16"),
]


@pytest.mark.parametrize(("network", "backend", "amp"), CASES)
def test_replays_compute_the_same_bits(network: str, backend: str, amp: str) -> None:
    counting = CountingCapturing()
    replayed = graph_updater(network, backend, amp, counting)
    run = graph_updater(network, backend, amp, CountingCapturing(captures=False))
    found = rows(replayed, network)
    print(
        f"graph {network} {backend} {amp}: {counting.captured} captures, {counting.replayed} replays"
    )
    assert_same(found, rows(run, network))
    assert_same(state(replayed), state(run))
    assert counting.replayed > 0
    assert counting.captured == 1 or backend != "triton"


@pytest.mark.parametrize("network", ["dydensenet", "dyresnet18"])
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_with_triton_they_are_the_ordinary_update(network: str, amp: str) -> None:
    replayed = graph_updater(network, "triton", amp, CountingCapturing())
    plain = ordinary(network, "triton", amp)
    assert_same(rows(replayed, network), rows(plain, network))
    assert_same(state(replayed), state(plain))


@pytest.mark.parametrize("backend", ["triton", "auto"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_mixed_images_and_pieces(backend: str, accumulate: int) -> None:
    first, second = (
        graph_updater("dydensenet", backend, "off", CountingCapturing(captures=on), accumulate)
        for on in (True, False)
    )
    found, wanted = (rows(rule, "dydensenet", mixing=True) for rule in (first, second))
    assert_same(found, wanted)
    assert_same(state(first), state(second))


@pytest.mark.parametrize("backend", ["triton", "auto"])
def test_a_training_that_was_interrupted_computes_the_same_bits(backend: str) -> None:
    whole = graph_updater("dydensenet", backend, "bf16", CountingCapturing())
    wanted = rows(whole, "dydensenet")
    first, second = (
        graph_updater("dydensenet", backend, "bf16", CountingCapturing()) for _ in range(2)
    )
    rows(first, "dydensenet", steps=range(11))
    second.module.load_state_dict(first.module.state_dict())
    for kind, values in first.optimizer.state.items():
        for name, value in values.items():
            second.optimizer.state[kind][name].copy_(value)
    assert_same(rows(second, "dydensenet", steps=range(11, STEPS)), wanted[11:])
    assert_same(state(second), state(whole))


def test_a_replay_reads_nothing_from_the_device() -> None:
    rule = graph_updater("dydensenet", "triton", "bf16", CountingCapturing())
    images, labels = batch("dydensenet")
    for _ in range(5):
        rule.step(images, labels, 0.01, 0.5, len(images))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(5):
            rule.step(images, labels, 0.01 * step, 0.5 + step / 20, len(images))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_trainer_replays_and_resumes_exactly(tmp_path: Path) -> None:
    extra = "device: cuda, backend: triton, amp: bf16, compile: reduce-overhead"
    whole = RunDir(tmp_path / "whole")
    rows_of_whole = trained(whole, extra)
    assert len(rows_of_whole) == 34
    resumed = interrupted(whole, tmp_path / "resumed", 20)
    assert trained(resumed, extra, resume=True) == rows_of_whole
    assert weights(resumed) == weights(whole)
    again, plain = RunDir(tmp_path / "again"), RunDir(tmp_path / "plain")
    assert trained(again, extra) == rows_of_whole
    found = trained(plain, extra.replace("reduce-overhead", "false"))
    wanted = [row[1] for row in rows_of_whole]
    # its learning rate has more digits than float32
    assert [row[1] for row in found] == pytest.approx(wanted, rel=1e-3)


class Reads(nn.Module):
    """Asks the device for a number in its forward."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y if float(y.detach().abs().max()) > 0 else -y


def test_a_network_that_reads_the_device_is_told_so() -> None:
    rule = ordinary("dydensenet", "auto", "off")
    module = Reads(rule.module)
    optimizer = GuardedSGD(
        module.named_parameters(), rule.optimizer.tripped, momentum=0.9, nesterov=True
    )
    given = {name: getattr(rule, name) for name in Updater.__dataclass_fields__}
    given |= {"module": module, "forward": module, "optimizer": optimizer}
    reading = GraphUpdater(**given)
    images, labels = batch("dydensenet")
    for _ in range(WARM_UP):
        reading.step(images, labels, 0.01, 0.5, len(images))
    line = r"cannot be captured as a CUDA graph \(.*\): set train\.compile = false"
    with pytest.raises(UsageError, match=line):
        reading.step(images, labels, 0.01, 0.5, len(images))
