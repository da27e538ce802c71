"""The two commands: what `make` says on a machine that lacks something; CI runs the second and
nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "CMakeLists.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_python_that_is_too_old_is_named(checkout: Path) -> None:
    old = checkout / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = make(checkout, "demo", f"PYTHON={old}")
    assert done.returncode == 2
    line = (
        f"error: {old} is Python 3.9.1, and Python 3.11 or newer is needed: name one with make"
        " PYTHON="
    )
    assert done.stderr.startswith(line)
    assert not (checkout / ".venv").exists()


def test_no_python_at_all_is_said(checkout: Path) -> None:
    done = make(checkout, "test", "PYTHON=")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.11 or newer is needed and none was found")


def test_a_failed_installation_leaves_no_stamp(checkout: Path) -> None:
    """So that the next `make` tries again."""
    venv = checkout / ".venv" / "bin"
    venv.mkdir(parents=True)
    pip = venv / "python"
    pip.write_text(
        '#!/bin/sh\ncase "$*" in *install*) echo "no network" >&2; exit 1;; esac\nexit 0\n'
    )
    pip.chmod(0o755)
    done = make(checkout, "install")
    assert done.returncode == 2
    assert "no network" in done.stderr
    assert not (checkout / ".venv" / ".installed").exists()


def test_an_installation_without_kernels_says_so_once(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = checkout / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(f'#!/bin/sh\n[ "$2" = pip ] || exec {sys.executable} "$@"\n')
    (venv / "python").chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DGC_NATIVE_LIBRARY", "nowhere.so")
    first, second = make(checkout, "install"), make(checkout, "install")
    assert (first.returncode, second.returncode) == (0, 0)
    notes = [line for line in first.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("note: nowhere.so cannot be loaded: ")
    assert notes[0].endswith("; plain PyTorch is used")
    assert "note" not in second.stderr


def test_ci_runs_make_test_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"]


def test_make_test_runs_every_check(checkout: Path) -> None:
    shown = make(checkout, "-n", "test").stdout
    for check in (
        "ruff format --check",
        "ruff check",
        "mypy",
        "lint-imports",
        "python -m pytest",
        '-m "not slow"',
    ):
        assert check in shown


def test_the_tests_take_each_usable_core_and_the_order_of_a_seed(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)

    def pytest_line(*arguments: str) -> str:
        shown = make(checkout, "-n", "test", *arguments).stdout
        return next(line for line in shown.splitlines() if "-m pytest" in line)

    usable = len(os.sched_getaffinity(0))
    assert f"-n {usable} --dist loadfile" in pytest_line()
    assert "random-order" not in pytest_line()
    assert "-n 5 --dist loadfile" in pytest_line("WORKERS=5")
    assert "--random-order-seed=3" in pytest_line("SEED=3")
    one = subprocess.run(
        ["taskset", "-c", str(min(os.sched_getaffinity(0))), "make", "-n", "test"],
        cwd=checkout, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "-n 1 --dist loadfile" in one


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (
            "baseline",
            {
                "ATEN_CPU_CAPABILITY=default",
                "ONEDNN_MAX_CPU_ISA=SSE41",
                "MKL_ENABLE_INSTRUCTIONS=SSE4_2",
            },
        ),
        (
            "avx2",
            {"ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2", "MKL_ENABLE_INSTRUCTIONS=AVX2"},
        ),
        ("avx512,-vnni", {"ATEN_CPU_CAPABILITY=avx512", "ONEDNN_MAX_CPU_ISA=AVX512_CORE"}),
        ("neon", set()),
    ],
)
def test_an_instruction_set_holds_for_the_kernels_and_for_pytorch(
    checkout: Path, asked: str, wanted: set[str]
) -> None:
    (checkout / "show.mk").write_text("include Makefile\nshow:\n\t@env\n")
    done = make(checkout, "-f", "show.mk", "show", f"ISA={asked}")
    assert wanted | {f"DGC_NATIVE_ISA={asked}"} <= set(done.stdout.splitlines())


def test_an_unknown_instruction_set_is_one_line(checkout: Path) -> None:
    done = make(checkout, "test", "ISA=avx3")
    assert done.returncode == 2
    assert "ISA=avx3: should begin with baseline, avx2, avx512 or neon" in done.stderr
    assert not (checkout / ".venv").exists()


def test_the_suite_ends_with_one_line_where_the_machine_lacks_the_instruction_set() -> None:
    done = subprocess.run(
        # collected only: where it did not end, it would run this test, and that the next
        [sys.executable, "-m", "pytest", "--collect-only", "tests/contract/test_make.py"],
        cwd=ROOT, env={**os.environ, "DGC_NATIVE_ISA": "avx513"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: DGC_NATIVE_ISA=avx513: unknown word 'avx513'" in done.stdout + done.stderr
