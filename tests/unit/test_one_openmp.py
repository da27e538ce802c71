"""The kernels bring no OpenMP of their own: those of training use the runtime that the process has,
PyTorch's where PyTorch is loaded; plans have threads of their own, which sleep between runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import dgc
from dgc.kernels.cpu import library
from tests.plan_files import images, network
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
ROOT = Path(__file__).resolve().parents[2]

MAPPED = """
import json, re, sys
if sys.argv[2] == "torch":
    import torch
import numpy as np
import dgc.runtime
plan = dgc.runtime.load(sys.argv[1], threads=2)
x = np.random.default_rng(0).standard_normal((4, 8, 20, 20)).astype(np.float32)
alone = dgc.runtime.load(sys.argv[1], threads=1)(x)
assert np.array_equal(plan(x), alone)
maps = [line.split(maxsplit=5)[-1].strip() for line in open("/proc/self/maps")]
print(json.dumps(sorted({m for m in maps if re.search(r"/lib(gomp|omp|iomp)[^/]*$", m)})))
"""


@pytest.mark.parametrize("first", ["torch", "nothing"])
def test_a_process_has_one_openmp_at_most(first: str, tmp_path: Path) -> None:
    file = dgc.save_plan(network(), images(), tmp_path / "x.dgc")
    done = subprocess.run(
        [sys.executable, "-c", MAPPED, file, first],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) <= 1
    if first == "torch":
        assert all("/torch/" in path or "libomp" in path for path in found)
