"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: built apart, driven by a
process of its own.

Each arena comes from the allocator, so reading or writing past it, past an image or past the
weights is seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
TOOLS = all(shutil.which(tool) for tool in ("cmake", "c++", "gcc"))

DRIVER = """
import sys
import torch
import dgc
from dgc.layers import DynamicGroupConv2d
from dgc.kernels.cpu import library
from dgc.layers.reference import masked_conv2d
from tests.one_layer import native_conv2d

torch.manual_seed(0)
torch.set_num_threads(2)
many = sys.argv[1] == "many"
for k in (1, 3, 5):
    for heads, channels, outs in ((1, 8, 5), (4, 32, 8), (2, 96, 32), (3, 24, 7)) + (((8, 1024, 16),) if many else ()):
        for size in (1, 7, 14, 33):
            for stride in (1, 2, 3):
                x = torch.randn(2, channels, size, size + 1)
                w = torch.randn(heads * outs, channels, k, k)
                g = torch.relu(torch.randn(2, heads, channels))
                y = native_conv2d(x, w, g, stride, k // 2, 1, heads)
                z = masked_conv2d(x, w, g, stride, k // 2, 1)
                assert (y - z).abs().max() <= 1e-4 * max(1, z.abs().max()), (k, heads, channels, outs, size, stride)
for k in (1, 3, 5):
    for heads, own, outs in ((1, 8, 5), (4, 8, 8), (2, 40, 32), (3, 2, 7)):
        for size in (5, 8, 17, 33):
            for stride in (1, 2, 3):
                layer = DynamicGroupConv2d(heads * own, heads * outs, k, stride, k // 2, heads=heads, gate_factor=1.0)
                for n in (0, heads * own // 2, heads * own - 1):
                    layer.set_inactive(n)
                    x = torch.randn(3, heads * own, size, size + 1, requires_grad=True)
                    if (k, n) == (3, 0):
                        x.data[1, 0, 0, 0] = torch.nan
                    y = layer(x)
                    assert "NativeLayer" in type(y.grad_fn).__name__
                    (y.square().sum() + layer.gate_l1).backward()
for name, size in (("dydensenet", 30), ("dyresnet18", 70 if many else 64)):
    numbers = {"stages": (2, 2), "growth": (8, 32)} if name == "dydensenet" else {}
    model = dgc.create_model(name, num_classes=7, **numbers)
    dgc.set_progress(model, 0.9)
    (model(torch.randn(6, 3, size, size)).square().mean() + dgc.gate_l1(model)).backward()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = None  # plain averages: two passes are enough for statistics that fit
    with torch.no_grad():
        model(torch.randn(6, 3, size, size))
        model(torch.randn(6, 3, size, size))
    engine = dgc.compile_for_inference(model.eval())
    for batch in (1, 3):
        x = torch.randn(batch, 3, size, size)
        assert engine.plan_for(x) is not None
        assert torch.isfinite(engine(x)).all()
print("clean")
"""


@pytest.fixture(scope="module", params=["OFF", "ON"], ids=["", "wide"])
def sanitized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library; and once with the vectors and tiles of AVX-512 in the instructions of AVX2."""
    build = tmp_path_factory.mktemp("sanitize")
    options = ["-DDGC_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=Release", f"-DDGC_WIDE={request.param}"]
    subprocess.run(["cmake", "-S", ROOT, "-B", build, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build, "--parallel"], check=True, capture_output=True)
    return build / "_dgc_native.so"


def _runtime(name: str) -> str:
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


@pytest.mark.slow
@pytest.mark.timeout(900)  # it builds the kernels first
@pytest.mark.skipif(not TOOLS, reason="needs cmake and a C++ compiler")
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_the_kernels_are_clean_under_the_sanitizers(sanitized: Path, isa: str) -> None:
    runtimes = " ".join(
        _runtime(name) for name in ("libasan.so", "libstdc++.so.6")
    )  # torch throws while it is imported
    environment = os.environ | {
        "LD_PRELOAD": runtimes,
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "DGC_NATIVE_LIBRARY": str(sanitized),
        "DGC_NATIVE_ISA": isa,
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", DRIVER, "few"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GUARD)
    if "this machine has" in done.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["clean"]
