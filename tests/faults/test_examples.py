"""The example loops: each trains, prunes, and killed with kill -9 it goes on to the same weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import GUARD

ROOT = Path(__file__).parents[2]
LOOPS = ["plain_pytorch", "lightning_module", "timm_loop", "accelerate_loop"]


def command(name: str, folder: Path) -> list[str]:
    given = ["--folder", str(folder), "--epochs", "3", "--images", "256"]
    return [sys.executable, str(ROOT / "examples" / f"{name}.py"), *given]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(name: str, folder: Path) -> str:
    done = subprocess.run(
        command(name, folder),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", LOOPS)
def test_killed_in_its_second_epoch_it_comes_to_the_same_weights(name: str, tmp_path: Path) -> None:
    whole = run(name, tmp_path / "whole")
    with subprocess.Popen(
        command(name, tmp_path / "killed"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # ends where the process does
            if line.startswith("epoch 1 begins"):
                process.kill()
    resumed = run(name, tmp_path / "killed")
    assert "epoch 0 begins" not in resumed
    assert "epoch 1 begins" in resumed
    last = [text.splitlines()[-1] for text in (whole, resumed)]
    assert last[0].startswith("digest ")
    assert last[0] == last[1]
    switched_off = int(whole.partition(" channels switched off")[0].split()[-1])
    assert switched_off > 0
