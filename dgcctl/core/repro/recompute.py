"""Data digest, MACs and parameters of a run, computed again in a process of dgc."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgc.run.paths import RunDir
from dgcctl.core.launch.query import query


def in_a_process(run: RunDir, data_dir: Path | None = None) -> Mapping[str, Any]:
    """{"data": {...}, "model": {...}} as the trainer would write them now, with the images in
    `data_dir` if they were moved there. Raises the process's error.
    """
    return query(
        "dgc.jobs.metadata",
        ["--run-dir", str(run.path), *([f"--data-dir={data_dir.absolute()}"] if data_dir else [])],
    )
