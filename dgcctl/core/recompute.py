"""Data digest, MACs and parameters of a run, computed again in a process of dgc (torch is loaded there, not here)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgc import records
from dgc.records import RunDir
from dgcctl.core.launch import child_environment
from dgcctl.core.outcome import error_of


def in_a_process(run: RunDir) -> Mapping[str, Any]:
    """{"data": {...}, "model": {...}} as the trainer would write them now. Raises the process's error."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "facts.json"
        command = [sys.executable, "-m", "dgc.facts", "--run-dir", str(run.path), "--json", str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=child_environment())
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise error_of(done.returncode, said.removeprefix("error: "))
        return records.read_json(answer)
