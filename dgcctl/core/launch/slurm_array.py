"""A Slurm job array: so many tasks of one program, each queued again where its node is lost or
Slurm warns it.

The work is in run directories that go on by themselves, so a batch script of a page is all that
Slurm needs. submitit would bring Python functions as pickles and its own way to go on; neither has
anything to do here.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dgc import settings
from dgc.errors import DgcError, LockedError, UsageError
from dgc.run.files import read_json, write_json
from dgcctl.core.launch.slurm import submit

_NOTE = "slurm.json"
_WARN_SECONDS = 120


@dataclass(frozen=True)
class Array:
    """What is asked of the cluster. `extra` are further #SBATCH options, as they are; `at_once`
    bounds how many tasks run (None: as many as there is room for).
    """

    name: str
    module: str
    folder: Path
    arguments: tuple[str, ...]  # one a task
    at_once: int | None = None
    extra: tuple[str, ...] = ()


def script(array: Array) -> str:
    """The text for sbatch. Raises UsageError for an option that is none."""
    for option in array.extra:
        if not option.startswith("-") or "\n" in option:
            raise UsageError(
                f"--sbatch {option!r}: should be one option of sbatch, as --partition=gpu"
            )
    folder = array.folder.absolute()
    bound = f"%{array.at_once}" if array.at_once else ""
    options = [
        f"--job-name=dgc-{array.name}",
        f"--array=0-{len(array.arguments) - 1}{bound}",
        "--ntasks=1",
        "--requeue",
        "--open-mode=append",
        f"--signal=B:USR1@{_WARN_SECONDS}",
        # sbatch reads % in a path as the beginning of a name of its own, and quotes as they are
        f'--output="{str(folder).replace("%", "%%")}/slurm-%A_%a.out"',
        *array.extra,
    ]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH {option}" for option in options),
            "",
            f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
            f"ARGUMENTS=({' '.join(map(shlex.quote, array.arguments))})",
            f"export DGCCTL_TRUST_CODE={shlex.quote(','.join(sorted(settings.trusted_code())))}",
            '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"',
            "# exec: Slurm's warning (USR1) goes to this very process",
            f"exec {shlex.quote(sys.executable)} -m {array.module} {shlex.quote(str(folder))}"
            ' "${ARGUMENTS[$SLURM_ARRAY_TASK_ID]}"',
            "",
        ]
    )


def start(array: Array) -> str:
    """Submit it, and remember its number beside the plan; what sbatch said. Raises LockedError
    where an array of the same folder still has tasks, UsageError where there is no Slurm.
    """
    text = script(array)
    # two arrays on one folder would take the same trials
    left = still_queued(array.folder)
    if left:
        raise LockedError(
            f"{array.folder}: {len(left)} tasks are still queued or running in Slurm"
            f" ({', '.join(left[:3])}{', ...' if len(left) > 3 else ''}): wait, or scancel them"
        )
    said = submit(text)
    write_json(array.folder / _NOTE, {"job": said.split()[-1], "tasks": len(array.arguments)})
    return said


def still_queued(folder: Path) -> list[str]:
    """Slurm's names of the folder's tasks that are queued or run, as 17_3."""
    try:
        job = str(read_json(folder / _NOTE)["job"])
        done = subprocess.run(
            # int(): the note is a file, and goes into a command line
            ["squeue", "--noheader", "--array", f"--jobs={int(job)}", "--format=%i"],
            capture_output=True,
            text=True,
            check=False,
        )
    except (OSError, DgcError, KeyError, ValueError):
        return []
    # a job that Slurm has forgotten is an error of squeue's
    return done.stdout.split() if done.returncode == 0 else []


def queue_again() -> str:
    """Ask Slurm to queue this very task again; what is to be said of it."""
    job = os.environ.get("SLURM_JOB_ID", "")
    command: Sequence[str] = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "scontrol: not found; the same command again goes on"
    if done.returncode:
        return f"Slurm did not queue task {job} again: {' '.join(done.stderr.split())}"
    return f"task {job} is queued again"
