"""Short processes of dgc that write a JSON answer (torch is loaded there, not here), and trainers run to their end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgc import records
from dgc.records import RunDir
from dgcctl.core import launch, outcome


def ask(module: str, *arguments: str) -> dict[str, Any]:
    """The answer of `python -m module ... --json FILE`. Raises the process's error, as it said it."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", module, *arguments, "--json", str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=launch.child_environment())
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise outcome.error_of(done.returncode, said.removeprefix("error: "))
        return records.read_json(answer)


def run_to_end(run: RunDir, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Start a trainer on a run, pass signals on, wait. Raises its error."""
    began = time.time()
    with launch.start_training(run, command, env=env) as process, launch.forwarding(process):
        code = process.wait()
    error = outcome.failure(run, code, began)
    if error is not None:
        outcome.settle(run, error)
        raise error
