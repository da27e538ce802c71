"""Images of any size: plans are kept by image size, in bounds, and each is made once."""

from __future__ import annotations

import copy
import threading
import warnings

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.errors import ArgumentError
from dgc.infer import NativeModule
from dgc.infer.plan_cache import LOOK_EVERY, PlanCache
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import available

pytestmark = pytest.mark.skipif(
    not available(), reason="the kernels were not built: no C++ compiler"
)
SIZES = [(8 + i % 20, 8 + i // 20) for i in range(200)]


def net() -> nn.Module:
    torch.manual_seed(0)
    layer = dgc.DynamicGroupConv2d(16, 16, 3, padding=1, heads=2, gate_factor=0.5)
    made = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), layer)
    dgc.set_progress(made, 1.0)
    return made.eval()


class Blocked(nn.Module):
    """A network of which no plan of the whole can be made: its parts have one each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y.sort(1).values


def compiled(model: nn.Module, **kept: int) -> NativeModule:
    engine = dgc.compile_for_inference(model)
    assert isinstance(engine, NativeModule)
    engine._plans = PlanCache(**kept)
    return engine


def images(size: tuple[int, int]) -> Tensor:
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(sum(size)))


def pass_over(engine: NativeModule) -> None:
    with torch.no_grad():
        for size in SIZES:
            engine(images(size))


def test_200_sizes_twice_are_compiled_once_each() -> None:
    engine = dgc.compile_for_inference(net())
    assert isinstance(engine, NativeModule)
    held = []
    for _ in range(3):
        pass_over(engine)
        held.append(engine._plans.held)
    assert engine._plans.compiled == 200
    assert held[0] == held[1] == held[2] > 0


@pytest.mark.parametrize("model", [net, Blocked])
def test_no_more_are_kept_than_may_be(model: type[nn.Module]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = compiled(model(), sizes=7)
        pass_over(engine)
    part = engine if model is net else engine.original.body
    assert len(part.made) == 7
    one = max(plan.held for plan in part.made if plan is not None)
    assert engine._plans.held <= 7 * one
    engine = compiled(net(), bytes_kept=3 * one)
    pass_over(engine)
    # what the newest works in is known once it has run
    assert 0 < engine._plans.held <= (3 + 1) * one
    # one that is larger than all that may be kept is kept nevertheless, alone
    engine = compiled(net(), bytes_kept=1)
    pass_over(engine)
    assert len(engine.made) == 1


def test_what_more_threads_work_in_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of plans that were all made before."""
    sizes = [(8 + i, 8) for i in range(20)]
    engine = compiled(net())
    for size in sizes:
        engine(images(size))
    engine._plans.bytes_kept = engine._plans.held
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for _ in range(3):
        for size in sizes[::-1]:
            engine(images(size).expand(64, -1, -1, -1))
    one = max(plan.held for plan in engine.made if plan is not None)
    assert engine._plans.held <= engine._plans.bytes_kept + (LOOK_EVERY + 1) * one
    assert len(engine.made) < len(sizes)


def test_a_part_that_was_replaced_has_plans_of_its_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = compiled(Blocked())
        for size in range(8, 14):
            torch.manual_seed(size)
            fresh = net()
            nn.init.normal_(fresh[0].weight)
            engine.original.body = fresh
            engine(images((size, size)))  # a new size, at which the new part is compiled
            for earlier in range(8, size + 1):
                x = images((earlier, earlier))
                with torch.no_grad():
                    wanted = fresh(x).sort(1).values
                    torch.testing.assert_close(engine(x), wanted, rtol=1e-3, atol=1e-4)


def test_what_was_used_last_stays_and_what_is_dropped_answers_as_before() -> None:
    engine, wanted = compiled(net(), sizes=2), net()
    for size, compiles in (((8, 8), 1), ((9, 9), 2), ((8, 8), 2), ((7, 7), 3), ((8, 8), 3)):
        x = images(size)
        with torch.no_grad():
            torch.testing.assert_close(engine(x), wanted(x), rtol=1e-4, atol=1e-5)
        assert engine._plans.compiled == compiles
    engine(images((9, 9)))
    assert engine._plans.compiled == 4


@pytest.mark.parametrize("model", [net, Blocked])
def test_sizes_that_are_named_are_compiled_at_once(model: type[nn.Module]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = dgc.compile_for_inference(model(), image_sizes=[12, (8, 10), (3, 9, 8), 12])
    assert isinstance(engine, NativeModule)
    compiles = engine._plans.compiled
    assert compiles == (3 if model is net else 6)  # the whole, which has none, and its part
    for size in ((12, 12), (8, 10), (9, 8)):
        engine(images(size))
    assert engine._plans.compiled == compiles
    engine(images((10, 8)))
    assert engine._plans.compiled > compiles


@pytest.mark.parametrize("size", [0, (8,), (3, 8, 8, 8), (8, -1), (8.0, 8.0)])
def test_what_is_no_size_is_said(size: object) -> None:
    with pytest.raises(ArgumentError, match="write a side, "):
        dgc.compile_for_inference(net(), image_sizes=[size])  # type: ignore[list-item]


def test_threads_make_a_plan_once_and_answer_as_one_does() -> None:
    engine, x = dgc.compile_for_inference(net()), torch.randn(4, 3, 24, 24)
    assert isinstance(engine, NativeModule)
    with torch.no_grad():
        wanted = dgc.compile_for_inference(net())(x)
    found: list[Tensor] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        with torch.no_grad():
            found.extend(engine(x) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine._plans.compiled == 1
    assert len(found) == 200
    assert all(torch.equal(y, wanted) for y in found)


def test_a_run_beside_another_has_memory_of_its_own() -> None:
    engine = dgc.compile_for_inference(net(), image_sizes=[8])
    assert isinstance(engine, NativeModule)
    plan = engine.made[0]
    assert isinstance(plan, NativePlan)
    mine = plan._workspace(1, 1)
    other = plan._workspace(1, 1)
    assert mine.memory.ctypes.data != other.memory.ctypes.data


def test_a_copy_makes_plans_of_its_own() -> None:
    engine = dgc.compile_for_inference(net(), image_sizes=[8])
    twin = copy.deepcopy(engine)
    assert isinstance(twin, NativeModule)
    assert twin.made == []
    x = images((8, 8))
    with torch.no_grad():
        assert torch.equal(twin(x), engine(x))
