"""The Triton kernels without a GPU: in Triton's interpreter, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.kernels import gpu
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(not gpu.installed(), reason="Triton is not installed")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("part", ["layers", "ties_and_nan", "static", "network"])
def test_the_kernels_agree_with_the_oracle_in_float64(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.interpreted_kernels", part],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        check=False, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
