"""The contracts of the kernels' headers, in a build that checks them (-DDGC_DEBUG=ON): all kernels
keep them on many shapes, and a program that breaks one is ended with a line that names it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.kernels.cpu import isa, library
from dgc.kernels.sources import built_from
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "native"
TOOLS = all(shutil.which(tool) for tool in ("cmake", "c++"))

pytestmark = [
    pytest.mark.skipif(not TOOLS, reason="needs cmake and a C++ compiler"),
    pytest.mark.skipif(
        not library.available(), reason="the kernels were not built: no C++ compiler"
    ),
    pytest.mark.timeout(GUARD),  # it builds the kernels first
]
BROKEN = {
    "weights_behind_the_block": "offset + bytes <= run.block_bytes (",
    "weights_between_two_lines": "offset % 64 == 0",
    "an_image_behind_its_arena": "t.offset + t.channels * t.plane + t.lead <= room(t.arena)",
    "rows_that_are_too_short": "t.row >= columns",
    "more_inactive_than_there_are": "op.inactive <= op.channels",
    "a_scratch_that_is_too_small": "<= c.program->scratch_floats",
    "more_rows_than_weights": "offset + bytes <= run.block_bytes (",
    "a_kind_that_there_is_not": "an operation of this kind exists",
}


def built(build: Path, *options: str) -> Path:
    options = ("-DDGC_DEBUG=ON", "-DCMAKE_BUILD_TYPE=Release", *options)
    subprocess.run(["cmake", "-S", ROOT, "-B", build, *options], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", build, "--parallel"], check=True, capture_output=True)
    return build / "_dgc_native.so"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("contracts"))


def run(checked: Path, program: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DGC_NATIVE_LIBRARY": str(checked), "PYTHONPATH": str(ROOT)} | more
    command = [sys.executable, PROGRAMS / program, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=GUARD)


def test_such_a_build_is_never_taken_for_the_usual_one(checked: Path) -> None:
    says = built_from(checked)
    assert says is not None
    assert says.digest.endswith("+debug")


def test_every_kernel_keeps_the_contracts(checked: Path) -> None:
    levels = library.describe()["supported"]
    assert isinstance(levels, list)
    for level in levels:
        done = run(checked, "exercise.py", "few", DGC_NATIVE_ISA=level)
        assert done.returncode == 0, (level, done.stderr[-3000:])
        assert done.stdout.split() == ["clean"]


def test_without_openmp_the_kernels_compute_the_same(tmp_path: Path) -> None:
    """As on a machine whose compiler has none; PyTorch still says how many threads it has."""
    alone = built(tmp_path, "-DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON")
    done = run(alone, "exercise.py", "few", DGC_NATIVE_ISA=isa.LEVELS[0])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["clean"]


def test_a_broken_contract_ends_the_process_with_its_name_and_place(checked: Path) -> None:
    done = run(checked, "broken_contracts.py")
    ended = dict(line.split(": ") for line in done.stdout.splitlines())
    abort = f"signal {signal.SIGABRT}"
    assert ended == {"nothing": "went through"} | dict.fromkeys(BROKEN, abort), done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("broken contract: ")]
    for line, wanted in zip(said, BROKEN.values(), strict=True):
        assert wanted in line
        assert ".h:" in line
