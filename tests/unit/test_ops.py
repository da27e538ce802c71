"""dgc_conv2d: the fast algorithms against the oracle on any shape, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgc.layers.algorithms import ALGORITHMS, dgc_conv2d
from dgc.layers.backend import BACKENDS, Backend
from dgc.layers.geometry import Geometry, select
from dgc.layers.selection import switch_off, switch_off_traced
from dgc.layers.shuffle import by_head, interleave, shuffle


def problem(
    heads: int, c: int, j: int, kernel: int, n: int, seed: int, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, heads * c, 8, 9, generator=generator, dtype=torch.float64)
    weight = torch.randn(
        heads * j, heads * c, kernel, kernel, generator=generator, dtype=torch.float64
    )
    gates = torch.rand(batch, heads, heads * c, generator=generator, dtype=torch.float64) - 0.2
    return x, weight, switch_off(gates.relu(), n)


def by_loops(
    x: Tensor, weight: Tensor, gates: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """FACTS, line by line: y_i = conv(x * g_i, w_i), output channel j*G + i."""
    heads, rows = gates.shape[1], weight.shape[0] // gates.shape[1]
    masked = [x * gates[:, i, :, None, None] for i in range(heads)]
    outs = [
        F.conv2d(masked[i], weight[i * rows : (i + 1) * rows], None, stride, padding, dilation)
        for i in range(heads)
    ]
    return torch.stack([outs[i][:, j] for j in range(rows) for i in range(heads)], 1)


NUMBERS = {
    "heads": st.integers(1, 8), "c": st.integers(1, 4), "j": st.integers(1, 3), "kernel": st.sampled_from([1, 3, 5]),
    "off": st.floats(0, 0.99), "stride": st.integers(1, 3), "padding": st.integers(0, 2),
    "dilation": st.integers(1, 2), "seed": st.integers(0, 999),
}  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True)
@given(**NUMBERS)
def test_masked_and_gathered_are_the_definition(
    heads: int,
    c: int,
    j: int,
    kernel: int,
    off: float,
    stride: int,
    padding: int,
    dilation: int,
    seed: int,
) -> None:
    if (kernel - 1) * dilation + 1 > 8 + 2 * padding:
        return  # no output
    n = int(off * heads * c)
    x, weight, gates = problem(heads, c, j, kernel, n, seed)
    wanted = by_loops(x, weight, gates, stride, padding, dilation)
    backends: tuple[Backend, ...] = ("masked", "gathered", "auto")
    for backend in backends:
        found = dgc_conv2d(x, weight, gates, n, stride, padding, dilation, heads, backend)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(**{**NUMBERS, "padding": st.just(0)})
def test_every_algorithm_by_hand_has_the_derivative_of_the_definition(
    heads: int,
    c: int,
    j: int,
    kernel: int,
    off: float,
    stride: int,
    padding: int,
    dilation: int,
    seed: int,
) -> None:
    if (kernel - 1) * dilation + 1 > 8:
        return
    kept = heads * c - int(off * heads * c)
    x, weight, gates = problem(heads, c, j, kernel, heads * c - kept, seed)
    leaves = [value.clone().requires_grad_() for value in (x, weight, gates)]
    wanted = by_loops(*leaves, stride, padding, dilation)
    grad = torch.randn_like(wanted)
    grad_x, grad_w, grad_gates = torch.autograd.grad(wanted, leaves, grad)
    geometry = Geometry(stride, padding, dilation, heads)
    for name, algorithm in ALGORITHMS.items():
        if name in ("product", "own_weights") and kernel > 1:
            continue
        selected = select(gates, kept if name in ("product", "per_sample") else heads * c)
        torch.testing.assert_close(
            algorithm.forward(x, weight, selected, geometry),
            wanted.detach(),
            rtol=1e-10,
            atol=1e-10,
        )
        grads = algorithm.backward(grad, x, weight, selected, geometry)
        torch.testing.assert_close(grads.x, grad_x)
        torch.testing.assert_close(grads.weight, grad_w)
        index = (
            torch.arange(heads * c).expand_as(gates) if selected.index is None else selected.index
        )
        torch.testing.assert_close(grads.gate, grad_gates.gather(-1, index))


def test_one_gate_alone() -> None:
    x, weight, gates = problem(2, 8, 3, 3, 0, 1)
    gates = torch.zeros_like(gates)
    gates[:, 1, 5] = 0.7
    y = dgc_conv2d(x, weight, gates, 15, 1, 1, 1, 2, "gathered")
    torch.testing.assert_close(y, by_loops(x, weight, gates, 1, 1, 1))
    assert not y[:, 0::2].any(), "head 0 is off: its channels are j*2 + 0"


def test_unknown_backend_and_wrong_heads_are_refused_by_name() -> None:
    x, weight, gates = problem(2, 4, 2, 1, 0, 0)
    with pytest.raises(ValueError, match=f"backend='fast': one of {', '.join(BACKENDS)}"):
        dgc_conv2d(x, weight, gates, 0, heads=2, backend="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gates have 2 heads, heads=4 was given"):
        dgc_conv2d(x, weight, gates, 0)


def test_shuffle_and_its_inverse() -> None:
    y = torch.arange(2 * 3 * 4 * 1).view(2, 3, 4, 1, 1)
    mixed = interleave(y)
    assert all(torch.equal(mixed[:, j * 3 + i], y[:, i, j]) for i in range(3) for j in range(4))
    assert torch.equal(by_head(mixed, 3), y)
    assert torch.equal(shuffle(y.flatten(1, 2), 3), mixed)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    values=st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=12),
    data=st.data(),
)
def test_selection_zeroes_everything_up_to_the_nth_smallest(
    values: list[float], data: st.DataObject
) -> None:
    n = data.draw(st.integers(0, len(values)))
    threshold = sorted(values)[n - 1]
    wanted = [0.0 if n and value <= threshold else value for value in values]
    gates = torch.tensor(values)[None, None]
    assert switch_off(gates, n).flatten().tolist() == wanted
    assert switch_off_traced(gates, torch.tensor([float(n)])).flatten().tolist() == wanted
