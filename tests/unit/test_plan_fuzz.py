"""What the fuzzer of plan files found worth keeping (`make fuzz`), run again with the library as it is
built here, on every instruction set of this machine; and inputs made up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dgc.kernels.cpu import library
from dgc.runtime import native
from tests.native import fuzz, fuzz_seeds
from tests.waiting import GUARD

COMPILER = shutil.which("g++") or shutil.which("clang++")
pytestmark = [
    pytest.mark.skipif(
        not library.available(), reason="the kernels were not built: no C++ compiler"
    ),
    pytest.mark.skipif(not COMPILER, reason="needs gcc or clang"),
]
ROOT = Path(__file__).resolve().parents[2]


def test_the_corpus_is_refused_or_runs(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    fuzz_seeds.write(tmp_path / "seeds")
    program = tmp_path / "fuzz_plan"
    words = [
        COMPILER, "-std=c++17", "-O1", "-DDGC_OWN_MAIN", f"-I{ROOT / 'dgc/kernels/cpu/src'}",
        ROOT / "tests/native/fuzz_plan.cpp", native.library(),
        f"-Wl,-rpath,{native.library().parent}", "-o", program,
    ]  # fmt: skip
    subprocess.run(words, check=True, timeout=GUARD)
    inputs = fuzz.unpack(tmp_path / "corpus")
    assert len(inputs) > 100
    done = subprocess.run(
        [program, "-runs=2000", *inputs],
        env=os.environ | {"DGC_FUZZ_SEEDS": str(tmp_path / "seeds")},
        capture_output=True, text=True, check=False, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    taken, refused = int(done.stdout.split()[0]), int(done.stdout.split()[4])
    assert taken > 20
    assert refused > 100
