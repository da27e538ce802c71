"""The guides in docs/: their code runs, and each command that they name is one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dgc.kernels.cpu import library
from dgcctl.cli.main import build
from tests.unit.run_factory import make_run
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL = re.compile(r"^```(?:bash|console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)

NETWORK = """
import dgc, torch
model = dgc.create_model("dydensenet", stem="cifar", num_classes=10, gate_factor=0.25, heads=4,
                         stages=[1, 1], growth=[8, 8]).eval()
dgc.set_progress(model, 1.0)
images = torch.zeros(2, 3, 32, 32)
names = [str(n) for n in range(10)]
"""
PLAN = 'dgc.save_plan(model, torch.zeros(1, 3, 32, 32), "model.dgc")\n'
# Of a page, what its blocks need before they run, one after the other in one process.
BEFORE = {
    "own-network.md": """
import torch, torchvision
images = torch.randn(2, 3, 224, 224)
torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), "mine.pth")
""",
    "deploy.md": NETWORK + PLAN,
    "int8.md": NETWORK,
    "scripts.md": "",
    "data-out.md": "",
}
# Smaller than on the page, so that a test takes seconds.
SMALLER = {"resnet50": "resnet18", "224": "32"}
# Not run here, and where its sense is tested.
ELSEWHERE = {
    "architecture.md": "a row of a table: tests/tui/test_step_metric.py adds one",
    "checkpoints.md": "released weights are fetched: tests/unit/test_hub_released.py has a server",
}


def blocks(page: Path) -> list[str]:
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


WITH_CODE = [page for page in PAGES if blocks(page)]


def test_the_code_of_every_guide_is_run_or_its_place_is_told() -> None:
    assert {page.name for page in WITH_CODE} == {*BEFORE, *ELSEWHERE}


NEEDS_KERNELS = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=NEEDS_KERNELS if n == "deploy.md" else ()) for n in BEFORE]
)
def test_the_code_of_a_guide_runs(name: str, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "20260101T000000Z-demo-000001")
    found = blocks(ROOT / "docs" / name)
    if name == "deploy.md":  # its last block reads what `dgcctl export --pt2` writes
        made = 'dgc.infer.operators.save_pt2(model, images, "model.pt2")'
        found[-1:] = [f"import dgc.infer.operators\n{made}\n{found[-1]}"]
    code = BEFORE[name] + "\n".join(found)
    for large, small in SMALLER.items():
        code = code.replace(large, small)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )
    assert done.returncode == 0, done.stderr


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for text in _SHELL.findall(page.read_text(encoding="utf-8")):
            for line in text.splitlines():
                if line.startswith("dgcctl "):
                    yield page.name, line.partition("  #")[0]


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_each_command_of_a_guide_is_one(page: str, line: str) -> None:
    """The words are parsed as the program would."""
    words = shlex.split(line.replace("...", "").replace(" RUN", " latest"))[1:]
    node: Any = typer.main.get_command(build())
    while hasattr(node, "list_commands"):
        node = node.get_command(None, words[0])
        assert node is not None, line
        words = words[1:]
    node.make_context("dgcctl", words)
