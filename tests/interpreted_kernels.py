"""The Triton kernels in Triton's interpreter, on the CPU, against the oracle in float64: run by
tests/unit/test_triton.py as `TRITON_INTERPRET=1 python -m tests.interpreted_kernels PART`, for
Triton asks once, when it is loaded.

It shows neither the rounding of TF32 nor races; what runs on a GPU is in tests/gpu.
"""

from __future__ import annotations

import copy
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dgc
from dgc.kernels.gpu import passes
from dgc.layers import DynamicGroupConv2d
from dgc.layers.static import norm_relu_conv
from tests.against_oracle import clear_of_the_kink, outcome, worst

TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# (C, O, kernel, stride, padding, dilation, heads, n inactive, height, width)
SHAPES = [
    (16, 16, 1, 1, 0, 1, 4, 0, 5, 3),
    (36, 64, 1, 1, 0, 1, 4, 13, 4, 4),
    (24, 12, 1, 2, 0, 1, 3, 18, 7, 5),
    (20, 24, 1, 1, 0, 1, 4, 15, 1, 1),
    (12, 20, 1, 1, 1, 1, 2, 5, 3, 4),
    (20, 32, 3, 2, 1, 1, 4, 11, 5, 5),
    (9, 6, 3, 1, 0, 1, 3, 8, 4, 5),
    (8, 10, 5, 1, 4, 2, 2, 3, 5, 4),
]


def drawn(
    shape: tuple[int, ...], number: int, seed: int, batch: int = 8
) -> tuple[DynamicGroupConv2d, Tensor]:
    """A layer and its input in float64."""
    c, o, kernel, stride, padding, dilation, heads, n, h, w = shape
    torch.manual_seed(seed)
    layer = DynamicGroupConv2d(
        c, o, kernel, stride, padding, dilation, heads, 4, 1 / c, bias=number % 2 == 1
    ).double()
    with torch.no_grad():  # far apart, and one tie: two channels are as weak as the n-th
        layer.fc2.mul_(0.01 if n % 2 else 0)
        order = torch.stack([torch.randperm(c) for _ in range(heads)])
        layer.fc2_bias.copy_(1 + order.clamp(min=1) / c)
    layer.set_inactive(n)
    layer.train(number != 1)
    return layer, clear_of_the_kink(layer, torch.randn(batch, c, h, w, dtype=torch.float64))


def of_the_oracle(layer: DynamicGroupConv2d, x: Tensor, *, coarse: bool = False) -> list[Tensor]:
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    return outcome(oracle, x, torch.float64, coarse=coarse)


def well_conditioned(
    shape: tuple[int, ...], number: int, batch: int = 8, share: int = 3, *, coarse: bool = False
) -> tuple[DynamicGroupConv2d, Tensor, list[Tensor]]:
    """The first draw in which no sum nearly cancels, so that an error says something of a kernel:
    the oracle itself, given its input and weights in bf16 (`coarse`: and the gradient that arrives),
    stays within a third of the bound (a `share`, and a smaller one where few values make each sum).
    Its float64 decides it, so every machine takes the same draw.
    """
    for seed in range(100 * number, 100 * number + 1000):
        layer, x = drawn(shape, number, seed, batch)
        expected = of_the_oracle(layer, x)
        rounded = copy.deepcopy(layer)
        with torch.no_grad():
            rounded.weight.copy_(rounded.weight.bfloat16())
        moved = of_the_oracle(rounded, x.bfloat16().double(), coarse=coarse)
        if worst(moved, expected) < TOLERANCE[torch.bfloat16] / share:
            print(f"{shape}: seed {seed}")
            return layer, x, expected
    raise AssertionError(f"{shape}: every draw nearly cancels somewhere")


def layers() -> None:
    for number, shape in enumerate(SHAPES):
        layer, x, expected = well_conditioned(shape, number)
        for dtype, tolerance in TOLERANCE.items():
            ours = copy.deepcopy(layer).float()
            ours.backend = "triton"
            given = x.float()
            if number % 3 == 0:
                given = given.contiguous(memory_format=torch.channels_last)
            error = worst(outcome(ours, given, dtype), expected)
            print(f"{str(dtype)[6:]} {shape}: {error:.1e}")
            assert error <= tolerance, (shape, dtype, error)


def ties_and_nan() -> None:
    raw = torch.tensor([[[0.5, 0.2, 0.2, 0.7, -1.0, 0.9]], [[0.1, 0.1, 0.1, 0.1, 0.1, 0.1]]])
    for n in range(6):
        gates, on, sums = passes.select(raw, torch.tensor([float(n)]))
        oracle = torch.relu(raw).transpose(0, 1)
        want = oracle
        if n:
            threshold = oracle.kthvalue(n, dim=-1, keepdim=True).values
            want = oracle.masked_fill(oracle <= threshold, 0.0)
        assert torch.equal(gates, oracle)
        assert torch.equal(on.gates, want), n
        assert torch.equal(on.counts, (want != 0).sum(-1).int())
        for row, count, channels in zip(want[0], on.counts[0], on.channels[0], strict=True):
            assert channels[:count].tolist() == row.nonzero().flatten().tolist()
            assert sorted(channels.tolist()) == list(range(len(row))), "no place is left unwritten"
        assert torch.allclose(sums, oracle.sum(-1))
    raw[0, 0, 1] = float("nan")
    _, on, _ = passes.select(raw, torch.tensor([3.0]))
    assert on.gates[0, 0].isnan().sum() == 1
    assert on.counts[0, 0] == 3, "0.7, 0.9 and NaN, which is never switched off"


def static() -> None:
    for c, o, groups, stride, h, w in (
        (32, 8, 4, 1, 5, 6),
        (12, 9, 3, 2, 7, 5),
        (80, 40, 2, 1, 3, 3),
    ):
        torch.manual_seed(0)
        norm, conv = nn.BatchNorm2d(c), nn.Conv2d(c, o, 3, stride, 1, groups=groups, bias=False)
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.3, 0.3)
        norm64, conv64 = copy.deepcopy(norm).double(), copy.deepcopy(conv).double()
        x = torch.randn(3, c, h, w)
        ours, oracle = x.clone().requires_grad_(), x.double().requires_grad_()
        y = norm_relu_conv(norm, conv, ours, kernels=False, triton=True)
        assert "TritonStatic" in type(y.grad_fn).__name__
        y64 = conv64(F.relu(norm64(oracle)))
        grad = torch.randn_like(y)
        y.backward(grad)  # type: ignore[no-untyped-call]
        y64.backward(grad.double())
        found, want = (
            [a, b.grad, d.weight.grad, e.weight.grad, e.bias.grad, e.running_mean, e.running_var]
            for a, b, d, e in ((y, ours, conv, norm), (y64, oracle, conv64, norm64))
        )
        error = worst(found, want)  # type: ignore[arg-type]
        print(f"grouped {c, o, groups, stride}: {error:.1e}")
        assert error <= 1e-6


def network() -> None:
    torch.manual_seed(0)
    net = dgc.create_model("dydensenet", stages=(1, 1), growth=(8, 8), num_classes=4).double()
    ours = copy.deepcopy(net).float()
    dgc.set_backend(net, "masked")
    dgc.set_backend(ours, "triton")
    x, labels = torch.randn(3, 3, 6, 6).double(), torch.tensor([0, 1, 3])
    outcomes = []
    for model, images in ((ours, x.float()), (net, x)):
        dgc.set_progress(model, 0.6)
        logits = model.train()(images)
        (F.cross_entropy(logits, labels) + 1e-2 * dgc.gate_l1(model)).backward()  # type: ignore[no-untyped-call]
        outcomes.append([logits, *(p.grad for p in model.parameters()), *model.buffers()])
    error = worst(*outcomes)  # type: ignore[arg-type]
    print(f"network: {error:.1e}")
    assert error <= 1e-5


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"layers": layers, "ties_and_nan": ties_and_nan, "static": static, "network": network}[
        sys.argv[1]
    ]()
