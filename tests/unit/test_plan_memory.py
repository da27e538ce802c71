"""Images of different forms share memory: nobody loses a number, and the zeros around the pixels are
there whatever lay there before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import dgc
from dgc.infer import emit, memory
from dgc.infer.compile import NativeModule
from dgc.infer.memory import Buffer, Image, place, write_in_place
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.kernels.cpu.layout import Layout, up
from dgc.kernels.cpu.structs import Kind
from tests.graph_check import instruction_set, instruction_sets
from tests.random_graphs import draw, network

needs_kernels = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)


# --- places ---------------------------------------------------------------------------------------


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[Buffer], list[bool]]:
    """Buffers of a program of up to 12 operations, and which of these run over all samples."""
    count = draw(st.integers(1, 12))
    buffers = []
    for _ in range(draw(st.integers(1, 14))):
        floats = draw(st.sampled_from([1, 16, 17, 64, 200]))
        image, padded = draw(st.booleans()), draw(st.booleans())
        key = (floats, draw(st.integers(0, 1)))
        uses = sorted(draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=4)))
        buffers.append(Buffer(floats, key, image=image, padded=image and padded, uses=uses))
    return buffers, draw(st.lists(st.booleans(), min_size=count, max_size=count))


def numbers_of(b: Buffer) -> set[int]:
    return set(range(b.offset, b.offset + up(b.floats)))


@given(lives())
def test_what_lives_at_once_never_overlaps(case: tuple[list[Buffer], list[bool]]) -> None:
    buffers, batched = case
    sizes = place(buffers, batched)
    for b in buffers:
        assert b.offset % 16 == 0
        assert b.offset + b.floats <= sizes[b.arena]
        for other in buffers:
            shared = b.arena == other.arena and numbers_of(b) & numbers_of(other)
            if other is b or not shared:
                continue
            assert max(b.uses) < min(other.uses) or max(other.uses) < min(b.uses)
            if not (b.image and other.image):
                # Padding of what is no image is made zero by nobody.
                assert (b.key, b.offset) == (other.key, other.offset)
            elif (b.key, b.offset) != (other.key, other.offset):
                assert b.reused == b.padded


@given(lives())
def test_an_image_that_nothing_overlaps_is_not_made_clear_again(
    case: tuple[list[Buffer], list[bool]],
) -> None:
    buffers, batched = case
    place(buffers, batched)
    for b in buffers:
        others = [o for o in buffers if o is not b and o.arena == b.arena]
        if not any(numbers_of(b) & numbers_of(o) for o in others):
            assert not b.reused


def test_images_of_any_size_follow_each_other() -> None:
    wide, small, late = (
        Buffer(n, n, image=True, padded=True, uses=uses)
        for n, uses in ((1000, [0, 1]), (200, [1, 2]), (700, [2, 3]))
    )
    assert place([wide, small, late], [False] * 4) == (up(1000) + up(200), 0)
    assert (late.offset, late.reused, wide.reused, small.reused) == (0, True, True, False)


def image(uses: list[int], channels: int = 4, row: int = 9) -> Image:
    layout = Layout(8, 8, 1, row, 16)
    buffer = Buffer(layout.floats(channels), (layout, channels), image=True, uses=uses)
    return Image(buffer, layout, channels)


def test_a_result_takes_the_place_of_an_operand_that_nobody_reads_later() -> None:
    first, second, third = image([0, 2]), image([2, 4]), image([4, 5])
    second.buffer.padded = True
    write_in_place([(2, first, second), (4, second, third)], [False] * 6)
    assert third.buffer.root is second.buffer.root is first.buffer.root is first.buffer
    assert (first.buffer.uses, first.buffer.padded) == ([0, 2, 2, 4, 4, 5], True)


@pytest.mark.parametrize(
    ("operand", "result", "batched"),
    [
        (image([0, 2, 3]), image([2, 4]), []),  # read later
        (image([0, 2]), image([1, 4]), []),  # the place is written before
        (image([0, 2]), image([2, 4], row=10), []),  # pixels elsewhere
        (image([0, 2]), image([2, 4], channels=3), []),
        (image([0, 2]), Image(image([2, 4], 8).buffer, Layout(8, 8, 1, 9, 16), 4), []),  # a part
        (image([0, 2]), image([2, 4]), [3]),  # a thread's, which would be each sample's
    ],
)
def test_any_other_result_has_a_place_of_its_own(
    operand: Image, result: Image, batched: list[int]
) -> None:
    write_in_place([(2, operand, result)], [i in batched for i in range(6)])
    assert result.buffer.root is result.buffer
    assert operand.buffer.uses[-1] in (2, 3)


@needs_kernels
def test_a_residual_that_is_read_again_is_not_written_over() -> None:
    class Net(nn.Module):
        def __init__(self, again: bool) -> None:
            super().__init__()
            self.again = again
            self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = torch.relu(self.convs[0](x))
            second = self.convs[2](torch.relu(self.convs[1](first))) + first
            return second.mean((2, 3)) + (first.mean((2, 3)) if self.again else 0)

    torch.manual_seed(0)
    x = torch.randn(2, 8, 12, 12)
    for again in (False, True):
        net = Net(again).eval()
        engine = dgc.compile_for_inference(net)
        assert isinstance(engine, NativeModule)
        plan = engine.plan_for(x)
        assert plan is not None
        places = [
            (op.residual.offset, op.dst.offset)
            for op in plan.ops
            if op.has_residual or op.kind == Kind.ADD
        ]
        assert len(places) == 1
        assert (places[0][0] == places[0][1]) is not again
        torch.testing.assert_close(engine(x), net(x), rtol=1e-5, atol=1e-5)


# --- kernels --------------------------------------------------------------------------------------


def apart(images: list[Buffer]) -> int:
    """Each image at a place of its own, as if memory were endless."""
    end = 0
    for b in images:
        b.offset, end = end, end + up(b.floats)
    return end


def spoiled(plan: NativePlan, samples: int, threads: int) -> int:
    """NaN in all memory of images whose writer makes the padding zero; how many such there are."""
    space = plan._workspace(samples, threads)
    found, p = 0, plan._program
    for op in plan.ops:
        if not op.dst.reused:
            continue
        found += 1
        first, floats = op.dst.offset, op.dst.channels * op.dst.plane + op.dst.lead
        begins = [owner * p.thread_floats for owner in range(threads)]
        if op.dst.arena:
            behind = threads * (p.thread_floats + p.scratch_floats)
            begins = [behind + k * p.sample_floats for k in range(samples)]
        for begin in begins:
            space.memory[begin + first : begin + first + floats] = np.nan
    plan._idle[:] = [space]
    return found


def plans_of(seed: int, x: torch.Tensor) -> NativePlan | None:
    engine = dgc.compile_for_inference(network(draw(seed)))
    return engine.plan_for(x) if isinstance(engine, NativeModule) else None


@needs_kernels
@pytest.mark.parametrize("isa", instruction_sets() if library.available() else [])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bits_as_with_a_place_for_each_image(
    isa: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 random networks, from memory full of NaN."""
    native, reused, smaller = library.load(), 0, 0
    assert native is not None
    with instruction_set(isa), torch.no_grad():
        for seed in range(60):
            graph = draw(seed)
            x = torch.randn(graph.batch, *graph.shape, generator=torch.Generator().manual_seed(1))
            shared = plans_of(seed, x)
            if shared is None:
                continue
            with monkeypatch.context() as patched:
                patched.setattr(memory, "_pack_images", apart)
                patched.setattr(emit, "write_in_place", lambda *_: None)
                alone = plans_of(seed, x)
            assert alone is not None
            assert not any(op.dst.reused for op in alone.ops)
            reused += spoiled(shared, len(x), workers)
            smaller += shared._program.thread_floats < alone._program.thread_floats
            wanted = alone.run(x, native, workers)
            for _ in range(2):
                assert torch.equal(shared.run(x, native, workers), wanted), seed
    assert reused >= 60
    assert smaller >= 30


@needs_kernels
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("preset", ["cifar10_dydensenet86_h4", "imagenet_dyresnet18_h4"])
def test_ours_give_the_same_bits(
    preset: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net, x = dgc.create_model(preset), torch.randn(2, 3, 64, 64)
    dgc.set_progress(net, 1.0)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():  # or numbers grow to infinity in untrained layers
        net.train()(torch.randn(8, 3, 64, 64))
    net.eval()
    native = library.load()
    assert native is not None

    def plan() -> NativePlan:
        engine = dgc.compile_for_inference(net, precision=precision)
        assert isinstance(engine, NativeModule)
        found = engine.plan_for(x)
        assert found is not None
        return found

    shared = plan()
    monkeypatch.setattr(memory, "_pack_images", apart)
    monkeypatch.setattr(emit, "write_in_place", lambda *_: None)
    alone = plan()
    assert spoiled(shared, len(x), 1) > 3
    wanted = alone.run(x, native, 1)
    assert wanted.isfinite().all()
    assert torch.equal(shared.run(x, native, 1), wanted)
    assert shared._program.thread_floats * 2 < alone._program.thread_floats


INT8_PAGE = Path(__file__).resolve().parents[2] / "docs/int8.md"
OURS = {
    "condensenet": ("imagenet_dydensenet_h4", 224),
    "resnet18": ("imagenet_dyresnet18_h4", 224),
    "densenet86": ("cifar10_dydensenet86_h4", 32),
}


@needs_kernels
@pytest.mark.parametrize("name", OURS)
def test_the_page_says_how_much_memory_plans_take(name: str) -> None:
    preset, side = OURS[name]
    net = dgc.create_model(preset)
    dgc.set_progress(net, 1.0)
    told = []
    for precision in ("float32", "int8"):
        engine = dgc.compile_for_inference(net.eval(), precision=precision)
        assert isinstance(engine, NativeModule)
        plan = engine.plan_for(torch.zeros(1, 3, side, side))
        assert plan is not None
        sizes = [
            plan.block.nbytes,
            *(plan._workspace(n, t).memory.nbytes for n, t in ((1, 1), (32, 2))),
        ]
        told.append(", ".join(f"{size / 1e6:.1f}" for size in sizes))
    assert f"| {name} | {told[0]} | {told[1]} |" in INT8_PAGE.read_text(encoding="utf-8")
