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
EXERCISE = ROOT / "tests" / "native" / "exercise.py"
TOOLS = all(shutil.which(tool) for tool in ("cmake", "c++", "gcc"))


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
@pytest.mark.parametrize(
    "isa", ["baseline", "avx2", "avx2,-vnni", "avx512", "avx512,-amx", "avx512,-vnni"]
)
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
    command = [sys.executable, EXERCISE, "few"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GUARD)
    if "this machine has" in done.stderr:
        pytest.skip(f"this machine has no {isa}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["clean"]
