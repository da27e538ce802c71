"""Each kernel for GPUs compiled for four targets, on a machine without a GPU, and what its code is
made of: registers, spills, shared memory, instructions of tensor cores, sums across lanes that are
fused with a product (none may be: tests/lane_sums.py), atomics.

`python -m tests.compiled_kernels` writes the table that tests/unit/test_compiled_kernels.py reads.
The kernels are launched by a forward and a backward of layers as the three networks have them, on
tensors without content; each is compiled as it was called there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import triton
from torch import nn
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dgc.kernels import gpu
from dgc.kernels.gpu import passes
from dgc.layers import DynamicGroupConv2d
from dgc.layers.static import norm_relu_conv, norm_relu_pool
from tests.fake_cuda import DEVICE, fake_cuda, on_device
from tests.lane_sums import fused_amd, fused_nvidia
from tests.recorded_launches import RecordedLaunch, recorded_launches

TABLE = Path(__file__).parent / "golden" / "gpu_kernels.json"
TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# (C, O, kernel, stride, padding, pixels across), batch 64: dynamic layers of the networks
LAYERS = {
    "densenet86 first": (16, 32, 1, 1, 0, 32),
    "densenet86 last": (544, 128, 1, 1, 0, 8),
    "condensenet middle": (256, 128, 1, 1, 0, 28),
    "condensenet last": (1936, 512, 1, 1, 0, 7),
    "resnet18 first": (64, 64, 3, 1, 1, 56),
    "resnet18 between": (128, 256, 3, 2, 1, 28),
    "resnet18 last": (512, 512, 3, 1, 1, 7),
    "small": (8, 128, 1, 2, 0, 3),  # of few pixels: a thread has one product of a sum
}
GROUPED = {"densenet86 grouped": (128, 32, 4, 8), "densenet86 grouped, narrow": (32, 8, 4, 32)}
POOLED = {"densenet86 transition": (144, 32)}  # C, pixels across
PRECISIONS = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Row = dict[str, int]


def launches(
    precisions: Sequence[str] = ("fp32", "bf16"),
    layers: Sequence[str] = (*LAYERS, *GROUPED, *POOLED),
) -> dict[str, RecordedLaunch]:
    """By name: kernel, precision and layer. What two layers compile alike is there once."""
    found: dict[str, RecordedLaunch] = {}
    seen: set[str] = set()
    for precision in precisions:
        for name, one in _each_layer(precision, layers):
            key = repr((one.name, one.source(), one.options))
            if key not in seen:
                seen.add(key)
                found.setdefault(f"{one.name} {precision} {name}", one)
    return found


def _each_layer(precision: str, layers: Sequence[str]) -> Iterator[tuple[str, RecordedLaunch]]:
    with _precision(precision):
        for name in layers:
            with recorded_launches() as recorded:
                if name in LAYERS:
                    _dynamic(LAYERS[name])
                elif name in GROUPED:
                    _grouped(GROUPED[name])
                else:
                    _pooled(*POOLED[name])
            for one in recorded:
                yield name, one


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    before, half = torch.backends.cuda.matmul.allow_tf32, PRECISIONS[name]
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        with fake_cuda(), torch.autocast("cuda", half, enabled=half is not None):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _dynamic(numbers: tuple[int, ...]) -> None:
    c, o, kernel, stride, padding, across = numbers
    layer = on_device(lambda: DynamicGroupConv2d(c, o, kernel, stride, padding, backend="triton"))
    layer.set_inactive(c // 2)  # type: ignore[operator]
    y = layer(torch.empty(64, c, across, across, device=DEVICE, requires_grad=True))
    y.sum().backward()


def _grouped(numbers: tuple[int, ...]) -> None:
    c, o, groups, across = numbers
    norm = on_device(lambda: nn.BatchNorm2d(c))
    conv = on_device(lambda: nn.Conv2d(c, o, 3, 1, 1, groups=groups, bias=False))
    x = torch.empty(64, c, across, across, device=DEVICE, requires_grad=True)
    y = norm_relu_conv(norm, conv, x, kernels=False, triton=True)  # type: ignore[arg-type]
    y.sum().backward()


def _pooled(c: int, across: int) -> None:
    norm = on_device(lambda: nn.BatchNorm2d(c))
    x = torch.empty(64, c, across, across, device=DEVICE, requires_grad=True)
    norm_relu_pool(norm, nn.ReLU(), nn.AvgPool2d(2), x, triton=True).sum().backward()


def facts(launch: RecordedLaunch, target: str) -> Row:
    """What its code for a target is made of."""
    signature, constants, attributes = launch.source()
    if TARGETS[target].backend == "hip" and "PRECISION" in constants:
        constants["PRECISION"] = passes.AMD_PRECISION  # what torch for ROCm makes of it
    source = ASTSource(launch.kernel, signature, constants, attributes)
    made = triton.compile(source, target=TARGETS[target], options=launch.options)
    shared = int(made.metadata.shared)
    read = _of_amd if TARGETS[target].backend == "hip" else _of_nvidia
    return read(made.asm, shared)


def _of_nvidia(asm: Any, shared: int) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(asm["cubin"])
        used = _said("cuobjdump", "-res-usage", str(cubin))
        code = _said("nvdisasm", "-c", str(cubin))
    registers, stack, local = (
        int(re.search(rf"{name}:(\d+)", used).group(1))  # type: ignore[union-attr]
        for name in ("REG", "STACK", "LOCAL")
    )
    spilled = len(re.findall(r"\b(?:STL|LDL)\b", code))
    return {
        "registers": registers,
        "spilled_bytes": stack + local,
        "spills": spilled,
        "shared_bytes": shared,
        "tensor_core": len(re.findall(r"\b(?:HMMA|HGMMA|QGMMA|UTCHMMA|UTC[A-Z]*MMA)\b", code)),
        "fused_lanes": fused_nvidia(code),
        # in what Triton wrote; and in the code, but for the two words of shared memory in which
        # ptxas notes for sm_100 who has which tensor memory (ATOMS.OR, ATOMS.AND)
        "atomics": len(re.findall(r"^\s*(?:@\S+\s+)?(?:atom|red)\.", asm["ptx"], re.MULTILINE))
        + len(re.findall(r"\b(?:ATOMG?|REDG?|UTMAREDG)\b|\bATOMS\.(?!OR\b|AND\b)", code)),
    }


def _of_amd(asm: Any, shared: int) -> Row:
    code = asm["amdgcn"]

    def number(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", code)
        return int(found.group(1)) if found else 0

    return {
        "registers": number("vgpr_count"),
        "spilled_bytes": number("private_segment_fixed_size"),
        # scalars that find no register go to lanes of a vector register, not to memory
        "spills": number("vgpr_spill_count"),
        "shared_bytes": shared,
        "tensor_core": len(re.findall(r"\bv_mfma_", code)),
        "fused_lanes": fused_amd(code),
        "atomics": len(re.findall(r"\b(?:global|buffer|flat|ds)_[a-z_]*(?:atomic|add_rtn)", code)),
    }


def _said(tool: str, *words: str) -> str:
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    return subprocess.run(
        [str(folder / tool), *words], capture_output=True, text=True, check=True
    ).stdout


def sources_digest() -> str:
    """Of the kernels and of what decides with which numbers they are compiled."""
    folder = Path(gpu.__file__).parent
    named = [
        *sorted(folder.glob("*.py")),
        folder.parents[1] / "layers" / "algorithms" / "triton.py",
    ]
    digest = hashlib.sha256()
    for path in named:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _one_by_one() -> dict[str, dict[str, Row]]:
    rows = {}
    for name, launch in launches().items():
        rows[name] = {target: facts(launch, target) for target in TARGETS}
        print(name, rows[name], file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    # else Triton hands out what it has compiled before
    os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp()
    table = {"triton": triton.__version__, "sources": sources_digest(), "kernels": _one_by_one()}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")
