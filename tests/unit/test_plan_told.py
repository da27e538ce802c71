"""What an operation tells of the channels it has just written, and vectors over outputs in images of
sub-planes.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.infer import conv as convolutions
from dgc.infer import winograd
from dgc.infer.compile import NativeModule
from dgc.infer.conv import convolve, select
from dgc.infer.conv_params import Conv
from dgc.infer.emit import Emitter
from dgc.infer.memory import new_image
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library, weights
from dgc.kernels.cpu.layout import Layout, Window
from dgc.kernels.cpu.structs import Kind
from dgc.layers.reference import masked_conv2d
from tests.graph_check import instruction_set, instruction_sets

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
ISAS = instruction_sets() if library.available() else []


class Squeezed(nn.Module):
    """x times a number for each channel that follows from x's means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid()


def plan_of(net: nn.Module, x: Tensor) -> NativePlan:
    engine = dgc.compile_for_inference(net)
    assert isinstance(engine, NativeModule)
    plan = engine.plan_for(x)
    assert plan is not None
    return plan


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize("side", [9, 30])
def test_means_come_from_the_operation_that_writes(isa: str, squeezed: bool, side: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU6(),
        *([Squeezed(16)] if squeezed else []),
        dgc.DynamicGroupConv2d(16, 32, 1, heads=4, gate_factor=0.5, norm=False),
        nn.ReLU6(),
    )
    dgc.set_progress(net, 1.0)
    net.eval()
    x = torch.randn(2, 3, side, side)
    with instruction_set(isa), torch.no_grad():
        plan = plan_of(net, x)
        tellers = [Kind(op.kind) for op in plan.ops if op.span and op.out.offset]
        assert tellers == [Kind.DEPTHWISE, Kind.COMBINE][: 1 + squeezed]
        assert Kind.MEAN not in [op.kind for op in plan.ops]
        native = library.load()
        assert native is not None
        found = plan.run(x, native, 1)
        assert torch.equal(found, plan.run(x, native, 2))
        torch.testing.assert_close(found, net(x), rtol=1e-4, atol=1e-5)


def test_of_an_image_that_two_wrote_the_means_are_computed() -> None:
    """A concatenation: no operation has all channels near."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.second = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.dgc = dgc.DynamicGroupConv2d(16, 16, 1, heads=2, gate_factor=0.5, norm=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.dgc(torch.cat([self.first(x), self.second(x)], 1))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    net = Joined()
    dgc.set_progress(net, 1.0)
    net.eval()
    x = torch.randn(2, 8, 12, 12)
    with torch.no_grad():
        plan = plan_of(net, x)
        native = library.load()
        assert native is not None
        assert [Kind(op.kind) for op in plan.ops].count(Kind.MEAN) == 1
        torch.testing.assert_close(plan.run(x, native, 1), net(x), rtol=1e-4, atol=1e-5)


# --- vectors over outputs, in sub-planes ----------------------------------------------------------

CASES = {  # side, stride, channels, outputs of a head, sub-planes of a side of the output
    "seven": ((7, 7), 1, 24, 32, 2),
    "odd": ((5, 9), 1, 17, 16, 2),
    "fourteen": ((14, 14), 1, 33, 80, 2),
    "one pixel": ((1, 1), 1, 8, 48, 2),
    "a row": ((1, 6), 1, 8, 16, 2),
    "every second": ((14, 14), 2, 24, 64, 1),
    "every second, odd": ((13, 7), 2, 9, 16, 1),
    "every second, in sub-planes": ((13, 15), 2, 9, 48, 2),
    "row after row": ((6, 6), 1, 40, 32, 1),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CASES)
def test_lanes_in_sub_planes(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size, stride, channels, outs, phases = CASES[name]
    monkeypatch.setattr(convolutions, "over_outputs", lambda *_: True)
    torch.manual_seed(0)
    heads = 2
    weight = torch.randn(heads * outs, channels, 1, 1)
    gates = torch.rand(3, heads, channels)
    conv = Conv(weight, torch.randn(heads * outs), stride, (0, 0), (1, 1), heads, fc1=gates)
    w = Window((1, 1), stride, (0, 0), (1, 1))
    to, shape = w.output(size), (channels, *size)
    out = winograd.layout(to) if phases == 2 else Layout(*to, 1, w.row(size, 1), 0)
    emitter = Emitter()
    images = {"src": new_image(w.input_layout(size, out.phases, out.row), channels)}
    images["dst"] = new_image(out, heads * outs)
    emitter.emit(Kind.INPUT, {"dst": images["src"]})
    lists = select(emitter, {}, conv, None, external=weights.rows(gates))
    convolve(emitter, conv, w, images, {"list": lists})
    emitter.emit(Kind.OUTPUT, {"src": images["dst"]}, channels=heads * outs)
    plan = emitter.finish(shape, (heads * outs, *to))
    (op,) = [op for op in plan.ops if op.kind == Kind.CONV]
    assert (op.lanes, op.dst.phases) == (1, phases)
    x = torch.randn(3, *shape)
    with instruction_set(isa):
        native = library.load()
        assert native is not None
        found = plan.run(x, native, 1)
        assert torch.equal(found, plan.run(x, native, 2))
    wanted = masked_conv2d(x, weight, gates, stride, 0, 1)
    assert conv.bias is not None
    wanted = wanted + conv.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
