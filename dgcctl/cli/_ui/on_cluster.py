"""`--launcher slurm` of sweep and search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dgc.errors import ExitCode, UsageError
from dgcctl.cli._ui import diagnostics, output
from dgcctl.core.launch import slurm_array

LAUNCHERS = ("local", "slurm")


def asked(launcher: str, sbatch: Sequence[str] | None, local_only: dict[str, Any]) -> bool:
    """Whether the trials go to Slurm. UsageError for what goes only with the other launcher."""
    if launcher not in LAUNCHERS:
        raise UsageError(f"--launcher {launcher}: should be {' or '.join(LAUNCHERS)}")
    if launcher == "local":
        if sbatch:
            raise UsageError("--sbatch: is for --launcher slurm")
        return False
    for option, given in local_only.items():
        if given:
            raise UsageError(f"{option}: is not for --launcher slurm, where no process waits")
    return True


def give(
    command: str,
    folder: Path,
    arguments: Sequence[str],
    at_once: int | None,
    sbatch: Sequence[str] | None,
) -> int:
    """Submit one task of a sweep or search for each of `arguments`, and come back at once."""
    if not arguments:
        diagnostics.note(f"{folder.name}: no trial is due")
        return int(ExitCode.DONE)
    array = slurm_array.Array(
        folder.name,
        f"dgcctl.core.{command}.{command}_task",
        folder,
        tuple(arguments),
        at_once,
        tuple(sbatch or ()),
    )
    output.line(slurm_array.start(array))
    diagnostics.note(
        f"{len(arguments)} tasks; see `dgcctl {command} show {folder.name}`, and squeue; the same"
        " command again goes on with what they leave"
    )
    return int(ExitCode.DONE)
