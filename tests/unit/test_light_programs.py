"""Programs that commands start import what they need, and nothing that takes long beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

JOBS = Path(__file__).resolve().parents[2] / "dgc" / "jobs"
# torch.compile's half of PyTorch (a second), and what is for downloads and pictures alone
HEAVY = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.onnx", "sympy",
         "httpx", "rich", "matplotlib", "torchvision")  # fmt: skip


def test_no_program_imports_what_only_some_of_its_calls_need() -> None:
    programs = [f"dgc.jobs.{path.stem}" for path in JOBS.glob("*.py") if path.stem != "__init__"]
    assert "dgc.jobs.evaluate" in programs
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "print(*(name for name in sys.argv[1].split() if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, " ".join(HEAVY), "dgc.train.main", *programs],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == []
