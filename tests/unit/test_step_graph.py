"""train.compile: reduce-overhead without a GPU: an update that is replayed from a tape (tests.tape)
computes the same bits as one that runs, whatever changes from step to step.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import dgc
from dgc.errors import RecipeError, UsageError
from dgc.layers import iter_dgc
from dgc.recipe.load import Recipe, dump_recipe, find_recipe, load_recipe, parse_recipe
from dgc.recipe.schema import OptimSection
from dgc.run.paths import RunDir
from dgc.train import build, session, step_graph
from dgc.train.distillation import Teacher
from dgc.train.mixing import Mix
from dgc.train.optimizers import make_optimizer
from dgc.train.ranks import Ranks
from dgc.train.step import Updater, column_names
from dgc.train.step_graph import WARM_UP, CudaCapturing, GraphUpdater
from tests import fake_cuda
from tests.fake_cuda import Counted
from tests.graph_runs import interrupted, trained, weights
from tests.tape import TapeCapturing
from tests.unit import test_fake_cuda_step
from tests.unit.test_train_options import losses, run_it

CPU = torch.device("cpu")
STEPS = 24
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "dydensenet": ("dydensenet", {"stages": (2, 2), "growth": (8, 8), "num_classes": 4}),
    "dyresnet18": ("dyresnet18", {"num_classes": 4}),
}
# numbers that float32 holds exactly, as a graph reads its learning rate; and so low that nothing
# grows without end: a NaN equals nothing, not even itself
RATES = [2.0 ** -(8 + step % 3) for step in range(STEPS)]


class Uncaptured:
    """Never captures: the same steps, run."""

    def run(self, work: Any) -> Tensor:
        return work()

    def capture(self, work: Any) -> Any:
        return work


def updater(
    network: str = "dydensenet",
    capturing: Any = None,
    form: str = "dgc",
    amp: str = "off",
    optim: dict[str, Any] | None = None,
    **more: Any,
) -> Updater:
    torch.manual_seed(0)
    name, numbers = NETWORKS[network]
    net = dgc.create_model(name, form=form, **numbers).train()
    dgc.set_backend(net, "plain")
    rule = make_optimizer(OptimSection(lr=0.1, **(optim or {})), net, torch.zeros(1))
    scaler = torch.amp.GradScaler("cpu", enabled=amp == "fp16", init_scale=64.0, growth_interval=4)
    given = (net, net, rule, scaler, Ranks(0, 1, 0, CPU), amp, 1e-5, more.pop("accumulate", 1))
    if capturing is None:
        return Updater(*given, **more)
    return GraphUpdater(*given, capturing=capturing, **more)


def batch(step: int, count: int = 4, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(count, 3, size, size, generator=generator)
    return images, torch.randint(0, 4, (count,), generator=generator)


def rows(
    rule: Updater, mixing: bool = False, steps: range = range(STEPS), progress: Any = None
) -> list[Tensor]:
    """Every sixth batch is short, as the last one of an epoch."""
    found = []
    for step in steps:
        images, labels = batch(step, 2 if step % 6 == 5 else 4)
        cut = (0.4, 0.6) if step % 2 else None
        mix = Mix(0.25 + step / 64, cut) if mixing and len(images) == 4 else None
        p = step / STEPS if progress is None else progress(step)
        found.append(rule.step(images, labels, RATES[step % STEPS], p, len(images), mix))
    return found


def state(rule: Updater) -> list[Tensor]:
    optimizer = [t for kind in rule.optimizer.state.values() for t in kind.values()]
    return [*rule.module.state_dict().values(), *optimizer, rule.optimizer.tripped]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    different = [
        number
        for number, (a, b) in enumerate(zip(one, other, strict=True))
        if not torch.equal(a, b)
    ]
    assert not different


CASES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "3x3": {"network": "dyresnet18"},
    "dense": {"form": "dense"},
    "bf16": {"amp": "bf16"},
    "fp16": {"amp": "fp16"},
    "pieces": {"accumulate": 2},
    "mixed": {"mixing": True, "label_smoothing": 0.1},
    "mixed pieces": {"mixing": True, "accumulate": 2},
    "adamw": {"optim": {"name": "adamw"}},
    "clipped": {"clip_grad_norm": 0.5},
    "channels_last": {"memory_format": torch.channels_last},
}


@pytest.mark.parametrize("case", list(CASES.values()), ids=list(CASES))
def test_replays_compute_the_same_bits(case: dict[str, Any]) -> None:
    case = dict(case)
    mixing = case.pop("mixing", False)
    tape = TapeCapturing()
    replayed, run = updater(capturing=tape, **case), updater(capturing=Uncaptured(), **case)
    assert_same(rows(replayed, mixing), rows(run, mixing))
    assert_same(state(replayed), state(run))
    assert tape.replays > 0
    assert tape.replays + tape.outside == STEPS


@pytest.mark.parametrize("case", [{}, {"network": "dyresnet18"}, {"form": "dense"}], ids=str)
@pytest.mark.parametrize("mixing", [False, True])
def test_replays_are_the_ordinary_update_where_no_size_is_staged(
    case: dict[str, Any], mixing: bool
) -> None:
    """No channel off, and all that are to go: there plain PyTorch's sizes are those of the step."""

    def progress(step: int) -> float:
        return 0.0 if step < STEPS // 2 else 0.9

    replayed, ordinary = updater(capturing=TapeCapturing(), **case), updater(**case)
    found, wanted = (rows(r, mixing, progress=progress) for r in (replayed, ordinary))
    assert torch.stack(wanted).isfinite().all()
    assert_same(found, wanted)
    assert_same(state(replayed), state(ordinary))


def test_between_two_stages_the_rest_differs_by_rounding() -> None:
    def progress(_: int) -> float:
        return 0.7  # between two stages, more than half of the channels are off

    replayed, ordinary = updater(capturing=TapeCapturing()), updater()
    found, wanted = (rows(r, steps=range(6), progress=progress) for r in (replayed, ordinary))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    numbers = {(layer.n_traced, layer.n_inactive) for _, layer in iter_dgc(replayed.module)}
    assert all(traced < n for traced, n in numbers)


def test_a_teacher_is_captured_too() -> None:
    wise = updater(network="dydensenet").module.eval()
    case = {"teacher": Teacher(wise, 4.0, 0.5, {})}
    replayed, ordinary = updater(capturing=TapeCapturing(), **case), updater(**case)
    found, wanted = (rows(r, progress=lambda _: 0.0) for r in (replayed, ordinary))
    assert_same(found, wanted)


def test_a_stage_is_captured_once_and_triton_needs_one_for_all() -> None:
    def progress(step: int) -> float:
        return step / 60

    tape = TapeCapturing()
    rows(updater(capturing=tape), steps=range(60), progress=progress)
    assert tape.captures == 5, "of four stages the first has none off, and all that are to go"
    tape = TapeCapturing()
    rule = updater(capturing=tape)
    for layer in rule._layers:  # as if: its kernels read the number from the device
        layer.__class__ = _ReadsItself
    rows(rule, steps=range(60), progress=progress)
    assert tape.captures == 1
    assert tape.outside == WARM_UP + 60 // 6


class _ReadsItself(dgc.DynamicGroupConv2d):
    triton = True  # type: ignore[assignment]


def test_a_run_that_was_interrupted_computes_the_same_bits() -> None:
    whole = updater(capturing=TapeCapturing())
    wanted = rows(whole)
    first = updater(capturing=TapeCapturing())
    rows(first, steps=range(11))
    second = updater(capturing=TapeCapturing())
    second.module.load_state_dict(first.module.state_dict())
    for kind, values in first.optimizer.state.items():
        for name, value in values.items():
            second.optimizer.state[kind][name].copy_(value)
    assert_same(rows(second, steps=range(11, STEPS)), wanted[11:])
    assert_same(state(second), state(whole))


def test_a_tripped_guard_keeps_the_parameters_in_replays_too() -> None:
    rule = updater(capturing=TapeCapturing())
    rows(rule, steps=range(5), progress=lambda _: 0.0)
    before = copy.deepcopy([p.detach() for p in rule.module.parameters()])
    images, labels = batch(0)
    for given in (images.mul(float("inf")), images):
        row = dict(zip(column_names(), rule.step(given, labels, 0.5, 0.0, 4), strict=True))
        assert row["bad"] == 1
    assert_same(before, [p.detach() for p in rule.module.parameters()])


# --- what would be wrong is seen ------------------------------------------------------------------


def frozen_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The learning rate of the capture goes on."""
    old = GraphUpdater.step

    def step(self: Any, images: Tensor, labels: Tensor, lr: float, *rest: Any) -> Tensor:
        self.optimizer.lr = lr
        return old(self, images, labels, lr, *rest)

    monkeypatch.setattr(GraphUpdater, "step", step)


def frozen_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many channels are off is a number of the host."""
    monkeypatch.setattr(step_graph, "counted_on_device", lambda _: contextlib.nullcontext())


def frozen_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shares of the first batch."""
    old = step_graph._Inputs.like.__func__

    def like(cls: Any, images: Tensor, target: Any) -> Any:
        found = old(cls, images, target)
        return found._replace(target=found.target._replace(share=target.share, rest=target.rest))

    monkeypatch.setattr(step_graph._Inputs, "like", classmethod(like))


@pytest.mark.parametrize("plant", [frozen_rate, frozen_number, frozen_shares])
def test_a_planted_fault_is_caught(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = rows(updater(capturing=Uncaptured()), mixing=True)
    plant(monkeypatch)
    found = rows(updater(capturing=TapeCapturing()), mixing=True)
    with pytest.raises(AssertionError):
        assert_same(found, wanted)


# --- on fake CUDA tensors -------------------------------------------------------------------------


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("rule", ["sgd", "adamw", "rmsprop"])
@pytest.mark.parametrize("mix", [None, Mix(0.3, (0.5, 0.5))], ids=["", "cutmix"])
def test_nothing_is_read_on_the_host(
    amp: str, rule: str, mix: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def graph_updater(*given: Any, **more: Any) -> Updater:
        return GraphUpdater(*given, capturing=Uncaptured(), **more)

    monkeypatch.setattr(test_fake_cuda_step, "Updater", graph_updater)
    with fake_cuda.fake_cuda():
        found: Counted = fake_cuda.counted_step(
            lambda: test_fake_cuda_step.updater("dydensenet", amp=amp, optim={"name": rule}),
            test_fake_cuda_step.IMAGES,
            0.6,
            mix,
        )
    assert found.strayed == {}


# --- the key --------------------------------------------------------------------------------------


def recipe(*overrides: str) -> Recipe:
    return load_recipe(find_recipe("cifar10_h4"), overrides)


def test_the_key_is_one_of_three_words() -> None:
    found = recipe("train.compile=reduce-overhead")
    assert found.train.compile == "reduce-overhead"
    assert parse_recipe(dump_recipe(found), "recipe.yaml").train.compile == "reduce-overhead"
    assert recipe("train.compile=true").train.compile is True
    assert recipe("train.compile=false").digest() == recipe().digest()
    assert found.digest() not in (recipe().digest(), recipe("train.compile=true").digest())


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("train.compile=fast",), 'is "fast" (a text); allowed: true or false or reduce-overhead'),
        (("train.compile=1",), "is 1 (a whole number); allowed: true or false or reduce-overhead"),
        (
            ("train.compile=reduce-overhead", "train.device=cpu"),
            "train.compile = reduce-overhead and train.device = cpu exclude each other: a CUDA graph"
            " needs a GPU",
        ),
        (
            ("train.compile=reduce-overhead", "train.backend=native"),
            "train.backend = native and train.compile = reduce-overhead exclude each other",
        ),
    ],
)
def test_what_cannot_be_is_one_line(overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(*overrides)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_machine_without_a_gpu_and_several_processes_are_refused(tmp_path: Path) -> None:
    on_any = ("device: cpu", "device: auto")
    nowhere = (
        "name: fashion_mnist",
        f"name: cifar10, dir: {tmp_path / 'no data'}, download: false",
    )
    graph = ("log_every: 3", "log_every: 3, compile: reduce-overhead")
    if not torch.cuda.is_available():
        line = (
            r"train\.compile = reduce-overhead needs a CUDA device .*: set train\.compile = false"
        )
        with pytest.raises(UsageError, match=line) as caught:
            run_it(tmp_path / "run", on_any, graph, nowhere)
        assert int(caught.value.exit_code) == 2
    wanted = recipe("train.compile=reduce-overhead")
    line = "for one process, and 2 were started: use --nproc-per-node 1, or set train.compile"
    with pytest.raises(UsageError, match=line):
        build.check_compile(wanted, torch.device("cuda", 0), 2)
    build.check_compile(wanted, torch.device("cuda", 0), 1)
    build.check_compile(recipe(), CPU, 2)


@pytest.fixture
def broken_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's part of a capture: it begins, and its end says that it was broken."""

    class Graph:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *_: Any) -> None:
            raise RuntimeError("CUDA error: operation failed due to a previous error")

    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: SimpleNamespace(device=CPU))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(torch.cuda, "graph", Graph)


@pytest.mark.usefixtures("broken_capture")
def test_a_step_that_cannot_be_captured_says_why_in_one_line() -> None:
    def reads() -> Tensor:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile")

    with pytest.raises(UsageError) as caught:
        CudaCapturing(CPU).capture(reads)
    assert str(caught.value) == (
        "train.compile = reduce-overhead: the step of this network cannot be captured as a CUDA graph"
        " (CUDA error: operation not permitted when stream is capturing): set train.compile = false"
    )


# --- the trainer ----------------------------------------------------------------------------------


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> Iterator[TapeCapturing]:
    """The trainer captures onto a tape, on the CPU."""
    tape = TapeCapturing()
    monkeypatch.setattr(build, "check_compile", lambda *_: None)
    monkeypatch.setattr(
        session, "GraphUpdater", lambda **given: GraphUpdater(**given, capturing=tape)
    )
    return tape


def test_a_run_trains_with_it(taped: TapeCapturing, tmp_path: Path) -> None:
    plain = ("log_every: 3", "log_every: 3, backend: plain")
    graph = ("log_every: 3", "log_every: 3, backend: plain, compile: reduce-overhead")
    on_any = ("device: cpu", "device: auto")
    found = losses(run_it(tmp_path / "graph", on_any, graph))
    assert taped.replays > 0
    wanted = losses(run_it(tmp_path / "plain", on_any, plain))
    assert len(found) == len(wanted) == 8
    assert found[:3] == pytest.approx(wanted[:3], rel=1e-4)


def test_a_run_that_was_killed_goes_on_exactly(taped: TapeCapturing, tmp_path: Path) -> None:
    extra = "device: auto, backend: plain, compile: reduce-overhead"
    whole = RunDir(tmp_path / "whole")
    rows_of_whole = trained(whole, extra)
    assert len(rows_of_whole) == 34
    assert taped.captures >= 3
    resumed = interrupted(whole, tmp_path / "resumed", 20)
    assert trained(resumed, extra, resume=True) == rows_of_whole
    assert weights(resumed) == weights(whole)


def test_layers_are_left_as_they_were() -> None:
    rule = updater(capturing=TapeCapturing())
    rows(rule, steps=range(6))
    assert not any(layer.n_from_buffer for _, layer in iter_dgc(rule.module))
