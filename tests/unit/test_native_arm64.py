"""The kernels as an arm64 machine has them (NEON, 32 registers): cross-compiled, and run in an
emulator.
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.bench.networks import build
from dgc.infer.compile import NativeModule
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.kernels.cpu.structs import Kind, Op

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (COMPILER and EMULATOR and library.available()),
        reason="needs the kernels, g++-aarch64-linux-gnu and qemu-user-static",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("arm64") / "run_plan"
    source = ROOT / "dgc" / "kernels" / "cpu" / "src"
    shared = ["-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"]
    in_floats = ["-ffp-contract=fast", "-DDGC_ISA=dgc_baseline"]
    in_bytes = ["-ffp-contract=off", "-DDGC_ISA=dgc_int8_baseline", "-DDGC_EXACT"]
    floats = ("api.cpp", "infer/executor.cpp", "train/train.cpp", "train/norm.cpp")
    parts = [(name, in_floats) for name in floats]
    parts += [("infer/workers.cpp", [])]
    parts += [(name, in_bytes) for name in ("infer/executor.cpp", "infer/int8/int8.cpp")]
    objects = [target.with_name(f"{i}.o") for i in range(len(parts))]
    for (name, flags), made in zip(parts, objects, strict=True):
        command = [str(COMPILER), *shared, *flags, "-c", str(source / name), "-o", str(made)]
        subprocess.run(command, check=True)
    main = [str(COMPILER), *shared, "-static", str(ROOT / "tests/native/run_plan.cpp")]
    subprocess.run([*main, *map(str, objects), "-o", str(target)], check=True)
    return target


def write(plan: NativePlan, x_BCHW: Tensor, path: Path) -> None:
    head = struct.pack(
        "<4q", library.ABI_VERSION, ctypes.sizeof(Op), plan.block.nbytes, len(x_BCHW)
    )
    path.write_bytes(head + plan.block.tobytes() + x_BCHW.numpy().tobytes())


def dyresnet18() -> tuple[nn.Module, Tensor]:
    return build("resnet18", "dgc"), torch.randn(2, 3, 96, 96)


def dydensenet86() -> tuple[nn.Module, Tensor]:
    return build("densenet86", "dgc"), torch.randn(2, 3, 32, 32)


def layers() -> tuple[nn.Module, Tensor]:
    """What the two have not: strides of three, dilation, kernels of five, odd numbers of channels
    and heads.
    """
    net = nn.Sequential(
        dgc.DynamicGroupConv2d(12, 42, 5, padding=2, heads=3, gate_factor=0.5),
        dgc.DynamicGroupConv2d(42, 30, 3, stride=3, padding=1, heads=6),
        dgc.DynamicGroupConv2d(30, 64, 3, padding=2, dilation=2, heads=2),
        dgc.DynamicGroupConv2d(64, 40, 3, padding=1, heads=1),
    )
    dgc.set_progress(net, 1.0)
    return net.eval(), torch.randn(3, 12, 29, 33)


@pytest.mark.parametrize("make", [dyresnet18, dydensenet86, layers], ids=lambda f: f.__name__)
@pytest.mark.parametrize("threads", [1, 3])
def test_an_emulated_arm64_gives_the_same_logits(
    make: Callable[[], tuple[nn.Module, Tensor]],
    threads: int,
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model, x = make()
    monkeypatch.setattr(library, "many_registers", lambda: True)  # as Python would see it there
    plan = NativeModule(model).plan_for(x)
    assert plan is not None
    assert make is not dyresnet18 or Kind.WINO in [op.kind for op in plan.ops]
    write(plan, x, tmp_path / "plan")
    subprocess.run(
        [str(EMULATOR), program, tmp_path / "plan", tmp_path / "out", str(threads)], check=True
    )
    found = torch.from_numpy(np.fromfile(tmp_path / "out", np.float32))
    with torch.no_grad():
        wanted = model(x)
    scale = wanted.abs().max().item()
    assert (found.view_as(wanted) - wanted).abs().max().item() <= 1e-4 * scale


@pytest.mark.parametrize("make", [dyresnet18, dydensenet86], ids=lambda f: f.__name__)
def test_an_emulated_arm64_gives_the_bits_of_this_machine_in_8_bits(
    make: Callable[[], tuple[nn.Module, Tensor]], program: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = make()
    plan, loaded = NativeModule(model, "int8").plan_for(x), library.load()
    assert plan is not None
    assert loaded is not None
    write(plan, x, tmp_path / "plan")
    subprocess.run([str(EMULATOR), program, tmp_path / "plan", tmp_path / "out", "2"], check=True)
    found = torch.from_numpy(np.fromfile(tmp_path / "out", np.float32))
    wanted = plan.run(x, loaded, 1)
    assert torch.equal(found.view(torch.int32), wanted.flatten().view(torch.int32))
