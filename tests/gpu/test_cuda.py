"""On a GPU: every algorithm against the oracle in float64, steps that never read the device, runs that
repeat bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import dgc
from dgc.layers import DynamicGroupConv2d
from dgc.train.optimizers import GuardedSGD
from dgc.train.ranks import Ranks
from dgc.train.seeding import set_switches
from dgc.train.step import Updater
from tests.against_oracle import clear_of_the_kink, outcome, worst

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: the GPU path is run on it"
)
DEVICE = torch.device("cuda")
BACKENDS = ["plain", "masked", "gathered", "triton"]
# largest error over the largest value, of the output and of each gradient
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}
# (C, O, kernel, stride, padding, dilation, heads, n inactive, height, width)
SHAPES = [
    (16, 16, 1, 1, 0, 1, 4, 0, 9, 7),
    (32, 64, 1, 1, 0, 1, 4, 13, 14, 14),
    (64, 48, 1, 2, 0, 1, 4, 48, 15, 9),
    (128, 64, 1, 1, 0, 1, 4, 96, 32, 32),
    (64, 32, 3, 1, 1, 1, 4, 0, 8, 8),
    (64, 64, 3, 1, 1, 1, 4, 35, 14, 14),
    (64, 128, 3, 2, 1, 1, 4, 35, 15, 15),
    (24, 20, 5, 1, 2, 2, 2, 11, 13, 11),
    (33, 30, 3, 1, 0, 1, 3, 32, 7, 5),
    (256, 256, 3, 1, 1, 1, 4, 141, 7, 7),
]


@pytest.fixture(autouse=True)
def single_precision() -> Iterator[None]:
    """No TF32: what is compared is the algorithm, not a rounding of its inputs."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def layer_and_input(shape: tuple[int, ...], seed: int = 0) -> tuple[DynamicGroupConv2d, Tensor]:
    """In float64 on the CPU. The gates are drawn far apart, so that no rounding selects another
    channel, and inputs stay away from the kink of the ReLU.
    """
    c, o, kernel, stride, padding, dilation, heads, n, h, w = shape
    torch.manual_seed(seed)
    layer = DynamicGroupConv2d(
        c, o, kernel, stride, padding, dilation, heads, 16, 1.0 / c if n == c - 1 else 0.25
    ).double()
    with torch.no_grad():
        layer.fc2.mul_(0.01)
        order = torch.stack([torch.randperm(c) for _ in range(heads)])
        layer.fc2_bias.copy_(1 + order / c)
    layer.set_inactive(n)
    return layer, clear_of_the_kink(layer, torch.randn(4, c, h, w, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("order", ["contiguous", "channels_last"])
def test_each_algorithm_agrees_with_the_oracle_in_float64(
    shape: tuple[int, ...], backend: str, dtype: torch.dtype, order: str
) -> None:
    layer, x = layer_and_input(shape)
    oracle = copy.deepcopy(layer)
    oracle.backend = "masked"
    ours = copy.deepcopy(layer).float().to(DEVICE)
    ours.load_state_dict(layer.state_dict())
    ours.backend = backend  # type: ignore[assignment]
    form = torch.channels_last if order == "channels_last" else torch.contiguous_format
    ours, given = ours.to(memory_format=form), x.float().to(DEVICE).to(memory_format=form)
    error = worst(outcome(ours, given, dtype), outcome(oracle, x, torch.float64))
    print(f"error {backend} {str(dtype)[6:]} {order} {shape}: {error:.1e}")
    assert error <= TOLERANCE[dtype]


def test_sixty_small_layers_by_triton_agree_with_the_oracle() -> None:
    """Those of Triton's interpreter, on the device itself."""
    from tests import interpreted_shapes  # imports Triton, which is not on every machine

    interpreted_shapes.many(0, interpreted_shapes.COUNT)


def test_each_mutant_of_a_kernel_is_caught() -> None:
    from tests import interpreted_shapes

    interpreted_shapes.mutants()


NETWORKS = {
    "dydensenet": ("dydensenet", {"stages": (2, 2, 2), "growth": (8, 16, 32), "num_classes": 10}, 32),
    "dyresnet18": ("dyresnet18", {"num_classes": 10}, 64),
}  # fmt: skip


def updater(network: str, form: str, amp: str = "off", accumulate: int = 1) -> Updater:
    torch.manual_seed(0)
    name, options, _ = NETWORKS[network]
    net = dgc.create_model(name, form=form, **options).train().to(DEVICE)
    ranks = Ranks(0, 1, 0, DEVICE)
    sgd = GuardedSGD(
        net.named_parameters(),
        torch.zeros(1, device=DEVICE),
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
    )
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=amp == "fp16")
    return Updater(net, net, sgd, scaler, ranks, amp, 1e-5, accumulate)


def batch(network: str, count: int = 8) -> tuple[Tensor, Tensor]:
    size = NETWORKS[network][2]
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, size, size, generator=generator)
    return images.to(DEVICE), torch.randint(0, 10, (count,), generator=generator).to(DEVICE)


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("form", ["dgc", "sgc", "dense"])
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
@pytest.mark.parametrize(("accumulate", "backend"), [(1, "auto"), (2, "auto"), (1, "triton")])
def test_a_step_reads_nothing_from_the_device(
    network: str, form: str, amp: str, accumulate: int, backend: str
) -> None:
    rule = updater(network, form, amp, accumulate)
    dgc.set_backend(rule.module, backend)  # type: ignore[arg-type]
    images, labels = batch(network)
    for p in (0.0, 0.5, 0.9):
        rule.step(images, labels, 0.01, p, len(images))
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            row = rule.step(images, labels, 0.01, p, len(images))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert torch.isfinite(row[:4]).all()  # under fp16 the first scales overflow the gradient


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("backend", ["auto", "triton"])
def test_two_trainings_are_equal_bit_for_bit(network: str, amp: str, backend: str) -> None:
    set_switches(deterministic=True, threads=None)
    try:
        first, second = ([*_trained(network, amp, backend)] for _ in range(2))
    finally:
        set_switches(deterministic=False, threads=None)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _trained(network: str, amp: str, backend: str) -> Iterator[Tensor]:
    rule = updater(network, "dgc", amp)
    dgc.set_backend(rule.module, backend)  # type: ignore[arg-type]
    images, labels = batch(network)
    for step in range(6):
        rule.step(images, labels, 0.01, step / 6, len(images))
    return iter([p.detach().cpu() for p in rule.module.state_dict().values()])


@pytest.mark.parametrize("network", list(NETWORKS))
@pytest.mark.parametrize("p", [0.0, 0.5, 0.9])
def test_a_step_on_the_gpu_is_the_one_on_the_cpu(network: str, p: float) -> None:
    """Loss and logits of a whole network; a near tie may select another channel, so most of the
    logits have to agree, not all."""
    rule = updater(network, "dgc")
    images, labels = batch(network)
    dgc.set_progress(rule.module, p)
    on_cpu = copy.deepcopy(rule.module).cpu().double()
    dgc.set_backend(on_cpu, "masked")
    with torch.no_grad():
        ours, oracle = rule.module(images).double().cpu(), on_cpu(images.double().cpu())
    scale = oracle.abs().max()
    rows = ((ours - oracle).abs() / scale).amax(1)
    print(f"network {network} {p}: {rows.tolist()}")
    assert rows.median() < 1e-4
    loss = F.cross_entropy(ours, labels.cpu())
    assert abs(loss - F.cross_entropy(oracle, labels.cpu())) < 0.05 * abs(loss)
