"""8-bit layers: the kernels against the plain reference, bit for bit, on every instruction set and
feature of this machine, for any number of threads and samples; and against float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgc.kernels.cpu import int8, library
from dgc.kernels.cpu.int8 import Convolution, kept_of
from dgc.kernels.cpu.isa import FEATURES, LEVELS, Choice
from dgc.kernels.cpu.layout import Window
from dgc.kernels.cpu.library import Library

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)


def all_libraries() -> Iterator[Library]:
    """One for each level of this machine, with vnni and amx where it has them and without."""
    loaded = library.load()
    assert loaded is not None
    for index in range(len(LEVELS)):
        if not loaded.handle.dgc_supports(index):
            continue
        bits = int(loaded.handle.dgc_features(index))
        names = [name for i, name in enumerate(FEATURES) if bits >> i & 1]
        for count in range(len(names) + 1):
            yield Library(loaded.handle, loaded.path, Choice(index, tuple(names[:count])))


def one() -> Library:
    return list(all_libraries())[-1]


def bits(y: Tensor) -> Tensor:
    return y.contiguous().view(torch.int32)


def assert_same(a: Tensor, b: Tensor, what: object = "") -> None:
    assert torch.equal(bits(a), bits(b)), what


def gates_of(seed: int, b: int, g: int, c: int, share: float) -> Tensor:
    r = torch.Generator().manual_seed(seed)
    gates = torch.rand(b, g, c, generator=r) + 0.05
    return gates * (torch.rand(b, g, c, generator=r) < share)


def draw_layer(draw: st.DrawFn) -> tuple[Convolution, Tensor, Tensor | None, Tensor | None]:
    """Half of them with so many channels and outputs that tiles of 64 channels pay."""
    heads, outs = draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 19))
    dynamic, kernel = draw(st.booleans()), draw(st.sampled_from([1, 3, 5]))
    channels = draw(st.integers(1, 13))
    if draw(st.booleans()):
        channels, outs = channels * 11, outs + 30
    channels *= 1 if dynamic else heads
    size = (draw(st.integers(1, 19)), draw(st.integers(1, 19)))
    stride = draw(st.sampled_from([1, 2]))
    norm, signed = draw(st.booleans()), draw(st.booleans())
    r = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    x = torch.randn(draw(st.integers(1, 3)), channels, *size, generator=r)
    window = Window((kernel, kernel), stride, (kernel // 2, kernel // 2), (1, 1))
    own = channels if dynamic else channels // heads
    layer = Convolution(
        torch.randn(heads * outs, own, kernel, kernel, generator=r), heads, window, size, dynamic,
        bias=torch.randn(heads * outs, generator=r) if draw(st.booleans()) else None,
        in_scale=torch.randn(channels, generator=r) if norm else None,
        in_shift=torch.randn(channels, generator=r) if norm else None,
        signed=signed, relu=draw(st.booleans()), apart=stride == 2 and draw(st.booleans()),
    )  # fmt: skip
    gates = gates_of(draw(st.integers(0, 999)), len(x), heads, channels, draw(st.floats(0, 1)))
    rest = torch.randn(len(x), heads * outs, *window.output(size), generator=r)
    return (
        layer,
        x if norm or signed else x.abs(),
        kept_of(gates) if dynamic else None,
        rest if draw(st.booleans()) else None,
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_instruction_set_gives_the_bits_of_the_reference(data: st.DataObject) -> None:
    layer, x, kept, residual = draw_layer(data.draw)
    wanted = layer.run(one(), x, kept, residual, reference=True)
    threads = data.draw(st.integers(1, 4))
    for each in all_libraries():
        assert_same(layer.run(each, x, kept, residual, threads), wanted, each.choice)
    for i in range(len(x)):  # alone as in the batch
        alone = None if kept is None else kept[i : i + 1].contiguous()
        rest = None if residual is None else residual[i : i + 1]
        assert_same(layer.run(one(), x[i : i + 1], alone, rest), wanted[i : i + 1])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_means_and_tops_have_the_same_bits_everywhere(data: st.DataObject) -> None:
    layer, x, kept, _ = draw_layer(data.draw)
    found = []
    for each in all_libraries():
        call = layer.prepare(each, x, kept)
        call.result()
        found.append((call.mean, call.top))
    v = x
    if layer.in_scale is not None and layer.in_shift is not None:
        v = F.relu(x * layer.in_scale[:, None, None] + layer.in_shift[:, None, None])
    assert torch.equal(found[0][1], v.abs().amax((2, 3)))
    # the rounding of a mean is a share of what is averaged
    off = (found[0][0] - v.double().mean((2, 3))).abs().max()
    assert off <= 1e-6 * v.abs().max()
    for mean, top in found[1:]:
        assert_same(mean, found[0][0])
        assert_same(top, found[0][1])


def dynamic_3x3(x: Tensor, heads: int = 4, outs: int = 16) -> Convolution:
    r = torch.Generator().manual_seed(1)
    weight = torch.randn(heads * outs, x.shape[1], 3, 3, generator=r)
    size = (int(x.shape[2]), int(x.shape[3]))
    return Convolution(weight, heads, Window((3, 3), 1, (1, 1), (1, 1)), size)


def in_float(layer: Convolution, x: Tensor, gates: Tensor) -> Tensor:
    g = layer.heads
    w = layer.weight.reshape(g, -1, *layer.weight.shape[1:])
    heads = [F.conv2d(x * gates[:, i, :, None, None], w[i], padding=1) for i in range(g)]
    return torch.stack(heads, 2).flatten(1, 2)  # output j of head i is channel j * heads + i


def test_near_the_same_layer_in_float32() -> None:
    x = torch.rand(2, 40, 14, 14)
    gates, layer = gates_of(3, 2, 4, 40, 0.4), dynamic_3x3(x)
    wanted = in_float(layer, x, gates)
    error = (layer.run(one(), x, kept_of(gates)) - wanted).norm() / wanted.norm()
    assert error < 0.01, float(error)  # bytes: about 0.005


def test_all_gates_zero_leave_the_bias() -> None:
    x = torch.rand(1, 8, 5, 5)
    layer = dynamic_3x3(x)
    for each in all_libraries():
        assert not layer.run(each, x, kept_of(torch.zeros(1, 4, 8))).any(), each.choice


def test_one_positive_gate() -> None:
    x = torch.rand(1, 8, 5, 5)
    gates = torch.zeros(1, 4, 8)
    gates[0, 2, 5] = 0.3
    layer = dynamic_3x3(x)
    y = layer.run(one(), x, kept_of(gates))
    torch.testing.assert_close(y, in_float(layer, x, gates), rtol=0.03, atol=0.02)
    assert not y[:, [c for c in range(64) if c % 4 != 2]].any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_saturated_at_both_ends(sign: float) -> None:
    """All values the largest, all weights the largest, as many as the deepest layers sum up."""
    x = torch.full((1, 1024, 4, 4), 7.0)
    weight = torch.full((16, 1024, 3, 3), sign)
    layer = Convolution(weight, 1, Window((3, 3), 1, (1, 1), (1, 1)), (4, 4))
    kept = kept_of(torch.ones(1, 1, 1024))
    for each in all_libraries():
        y = layer.run(each, x, kept)
        assert_same(y, layer.run(each, x, kept, reference=True), each.choice)
        torch.testing.assert_close(
            y[0, 0, 1, 1], torch.tensor(sign * 7.0 * 9 * 1024), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_broken_sample_breaks_itself_alone(broken: float, threads: int) -> None:
    x = torch.rand(3, 8, 6, 6)
    layer, kept = dynamic_3x3(x), kept_of(torch.ones(3, 4, 8))
    whole = layer.run(one(), x, kept)
    x[1, 3, 2, 2] = broken
    for each in all_libraries():
        y = layer.run(each, x, kept, threads=threads)
        assert y[1].isnan().all(), each.choice
        assert_same(y[[0, 2]], whole[[0, 2]])


def test_more_products_than_a_sum_holds_are_refused() -> None:
    weight = torch.zeros(1, int8.MOST_PRODUCTS + 1, 1, 1)
    with pytest.raises(ValueError, match="at most 33155 fit 32 bits"):
        Convolution(weight, 1, Window((1, 1), 1, (0, 0), (1, 1)), (1, 1))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_layer_tells_what_a_pass_over_its_result_would_find(data: st.DataObject) -> None:
    layer, x, kept, residual = draw_layer(data.draw)
    outputs = int(layer.weight.shape[0])
    for each in all_libraries():
        call = layer.prepare(each, x, kept, residual)
        y = call.result()
        assert torch.equal(call.out_top, y.abs().amax((2, 3)))
        identity = Convolution(
            torch.eye(outputs)[:, :, None, None], 1, Window((1, 1), 1, (0, 0), (1, 1)),
            (int(y.shape[2]), int(y.shape[3])), dynamic=False, signed=True,
        )  # fmt: skip
        over = identity.prepare(each, y, None)
        over.result()
        assert torch.equal(over.top, call.out_top)
        torch.testing.assert_close(call.out_mean, over.mean, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_worker_needs_as_much_memory_as_python_says(data: st.DataObject) -> None:
    layer, x, kept, _ = draw_layer(data.draw)
    call = layer.prepare(one(), x, kept)
    own = x.shape[1] if layer.dynamic else x.shape[1] // layer.heads
    taps = int(layer.weight[0, 0].numel())
    outs = int(layer.weight.shape[0]) // layer.heads
    said = int8.scratch_floats(layer.layouts()[0], int(own), taps, outs)
    assert 4 * said == call.call.scratch_step
