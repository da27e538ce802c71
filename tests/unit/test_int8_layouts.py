"""Plans in 8 bits that keep pixels apart as they read them, and pool what they compute while it is
near: the same bits as through copies and a pooling of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.infer.lower_int8 import Int8Lowering
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Kind
from tests.graph_check import instruction_set, instruction_sets
from tests.plan_files import plan_of

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)


def strided(
    channels: int, outputs: int, size: tuple[int, int], kernel: int = 3, heads: int = 2
) -> nn.Module:
    """A dynamic convolution behind a BatchNorm, another of one tap beside it, and their sum."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            more = {"heads": heads, "gate_factor": 0.5, "stride": 2}
            self.norm = nn.BatchNorm2d(channels)
            self.wide = dgc.DynamicGroupConv2d(
                channels, outputs, kernel, padding=kernel // 2, **more
            )
            self.point = dgc.DynamicGroupConv2d(channels, outputs, 1, **more)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.norm(x))
            out: Tensor = self.wide(x) + self.point(x)
            return out

    assert min(size) > 1
    return Both()


def stem(kernel: int, stride: int, pool: nn.Module, channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 20, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(20),
        nn.ReLU(),
        pool,
        dgc.DynamicGroupConv2d(20, 16, 3, padding=1, heads=2, gate_factor=0.5),
    )


def ready(net: nn.Module) -> nn.Module:
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.3, 0.3)
            assert m.running_mean is not None
            nn.init.uniform_(m.running_mean, -0.2, 0.2)
    dgc.set_progress(net, 1.0)
    return net.eval()


def by_copies(monkeypatch: pytest.MonkeyPatch, net: nn.Module, x: Tensor) -> NativePlan:
    """Its plan as if kernels could neither keep pixels apart nor pool."""
    with monkeypatch.context() as patched:
        patched.setattr(Int8Lowering, "_pooled_alone", lambda *_: None)
        patched.setattr(
            Int8Lowering,
            "_source",
            lambda to, node, w, written: to._laid_out(
                node, to.realised(node), w.input_layout(to.sizes[node], 1, written.row)
            ),
        )
        plan = plan_of(net, x, "int8")
    assert not any(op.bytes.phases or op.unpooled.phases for op in plan.ops)
    return plan


def assert_same_bits(monkeypatch: pytest.MonkeyPatch, net: nn.Module, x: Tensor) -> NativePlan:
    for isa in instruction_sets():
        with instruction_set(isa):
            native = library.load()
            assert native is not None
            plan, wanted_by = plan_of(net, x, "int8"), by_copies(monkeypatch, net, x)
            wanted = wanted_by.run(x, native, 1)
            assert wanted.isfinite().all()
            for threads in (1, 2):
                found = plan.run(x, native, threads)
                assert torch.equal(found.view(torch.int32), wanted.view(torch.int32)), isa
    return plan


@pytest.mark.parametrize(
    ("channels", "size", "kernel"),
    [
        (8, (56, 56), 3),
        (8, (29, 31), 3),
        (24, (14, 14), 3),
        (24, (15, 13), 5),
        (4, (2, 2), 3),
        (6, (7, 33), 3),
        (40, (64, 18), 3),
    ],
)
def test_pixels_kept_apart_as_they_are_read(
    channels: int, size: tuple[int, int], kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    # First something that writes an image with its pixels side by side.
    net = nn.Sequential(nn.Conv2d(channels, channels, 1), strided(channels, 24, size, kernel))
    x = torch.randn(3, channels, *size)
    plan = assert_same_bits(monkeypatch, ready(net), x)
    assert sum(op.bytes.phases == 2 for op in plan.ops) == 2
    assert not any(op.kind == Kind.PACK for op in plan.ops)


def test_a_strided_static_convolution_reads_values_of_either_sign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 10, 3, 2, 1, groups=2), nn.Conv2d(10, 4, 1, 2))
    plan = assert_same_bits(monkeypatch, ready(net), torch.randn(2, 6, 21, 17))
    assert [op.bytes.phases for op in plan.ops if op.kind == Kind.CONV8] == [2, 2]


POOLS: dict[str, Callable[[], nn.Module]] = {
    "3, padded": lambda: nn.MaxPool2d(3, 2, 1),
    "3": lambda: nn.MaxPool2d(3, 2),
    "2": lambda: nn.MaxPool2d(2),
    "2, padded": lambda: nn.MaxPool2d(2, 2, 1),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("size", "kernel", "stride"), [((64, 64), 7, 2), ((19, 37), 3, 1)])
def test_a_result_that_is_pooled_while_it_is_near(
    pool: str, size: tuple[int, int], kernel: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net, x = ready(stem(kernel, stride, POOLS[pool]())), torch.randn(3, 3, *size)
    plan = assert_same_bits(monkeypatch, net, x)
    assert sum(op.unpooled.phases == 1 for op in plan.ops) == 1
    assert not any(op.kind == Kind.POOL for op in plan.ops)


def test_a_broken_image_breaks_itself_alone() -> None:
    torch.manual_seed(0)
    net, x = ready(stem(7, 2, nn.MaxPool2d(3, 2, 1))), torch.randn(3, 3, 40, 40)
    native, plan = library.load(), plan_of(net, x, "int8")
    assert native is not None
    whole = plan.run(x, native, 1)
    x[1, 2, 5, 7] = torch.nan
    found = plan.run(x, native, 2)
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2]], whole[[0, 2]])


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(4, 2), nn.MaxPool2d(2, ceil_mode=True)],
    ids=str,
)
def test_what_the_kernel_cannot_pool_is_pooled_by_itself(pool: nn.Module) -> None:
    net, x = ready(stem(3, 1, pool)), torch.randn(1, 3, 19, 19)
    ops = plan_of(net, x, "int8").ops
    assert not any(op.unpooled.phases for op in ops)
    assert any(op.kind == Kind.POOL for op in ops)


def test_a_result_that_others_read_as_well_is_kept() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return torch.cat([self.pool(x).mean((2, 3)), x.mean((2, 3))], 1)

    x = torch.randn(2, 3, 12, 12)
    assert not any(op.unpooled.phases for op in plan_of(ready(Twice()), x, "int8").ops)
    many = stem(3, 1, nn.MaxPool2d(2), channels=17)
    assert not any(
        op.unpooled.phases for op in plan_of(ready(many), torch.randn(1, 17, 12, 12), "int8").ops
    )
