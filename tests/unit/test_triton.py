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


def interpreted(module: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{module}", *words],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
        check=False, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("part", ["layers", "ties_and_nan", "static", "network"])
def test_the_kernels_agree_with_the_oracle_in_float64(part: str) -> None:
    interpreted("interpreted_kernels", part)


def test_small_layers_agree_too() -> None:
    interpreted("interpreted_shapes", "many", "0", "8")


def test_mutants_are_caught() -> None:
    said = interpreted("interpreted_shapes", "mutants")
    assert said.count("mutant") >= 6, said


def test_operators_are_checked_compiled_whole_and_exported() -> None:
    said = interpreted("interpreted_operators")
    assert said.count("opcheck") == 3
    assert "exported: 2 operators" in said
