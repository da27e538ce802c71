"""A complete batch script for Slurm: one run, resumed over preemptions, torchrun on every node.

The run directory bears the job's id, which a requeued job keeps. Slurm's warning (USR1 to the batch
shell) becomes the file control/stop: a launcher between shell and trainer would not pass the signal
on, and all ranks see one file.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dgc import settings
from dgc.errors import UsageError
from dgc.recipe.load import Recipe, check_world_size, dump_recipe
from dgcctl.core.launch.launcher import RANKS_STARTER

_TIME = re.compile(r"(\d+-)?\d{1,3}(:\d{2}){0,2}")
_END = "DGCCTL_RECIPE"


@dataclass(frozen=True)
class Job:
    """What is asked of the cluster. `extra` are further #SBATCH options, as they are."""

    nodes: int = 1
    gpus_per_node: int = 1
    cpus_per_task: int = 8
    time: str = "24:00:00"
    warn_seconds: int = 120
    partition: str | None = None
    account: str | None = None
    extra: tuple[str, ...] = ()

    @property
    def ranks_per_node(self) -> int:
        return max(1, self.gpus_per_node)


def script(recipe: Recipe, job: Job, runs: Path, folder: Path) -> str:
    """The text for sbatch. Raises UsageError or RecipeError for what cannot be."""
    _check(recipe, job)
    parts = ["#!/usr/bin/env bash", *_directives(recipe, job), _BODY]
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    values = {
        "@FOLDER@": shlex.quote(str(folder)),
        "@RUN@": shlex.quote(f"{runs.absolute()}/{stamp}-{recipe.name}-"),
        "@PYTHON@": shlex.quote(sys.executable),
        "@STARTER@": RANKS_STARTER,
        "@NODES@": str(job.nodes),
        "@RANKS@": str(job.ranks_per_node),
        "@TRUST@": shlex.quote(",".join(sorted(settings.trusted_code()))),
        "@CPUS@": str(job.cpus_per_task // job.ranks_per_node or 1),
        "@RECIPE@": dump_recipe(recipe).rstrip("\n"),
        "@END@": _END,
    }
    return re.sub(r"@[A-Z]+@", lambda mark: values[mark[0]], "\n".join(parts))


def _check(recipe: Recipe, job: Job) -> None:
    if not _TIME.fullmatch(job.time):
        raise UsageError(
            f"--time {job.time}: should be [days-]hours:minutes:seconds, as 24:00:00 or 2-12:00:00"
        )
    for option in job.extra:
        # a line break in an option would be a line of our script
        if not option.startswith("-") or "\n" in option:
            raise UsageError(
                f"--sbatch {option!r}: should be one option of sbatch, as --constraint=a100"
            )
    # before it waits in a queue for hours
    check_world_size(recipe, job.nodes * job.ranks_per_node)


def _directives(recipe: Recipe, job: Job) -> list[str]:
    options = [
        f"--job-name=dgc-{recipe.name}",
        f"--nodes={job.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={job.cpus_per_task}",
        *([f"--gpus-per-node={job.gpus_per_node}"] if job.gpus_per_node else []),
        f"--time={job.time}",
        "--requeue",
        "--open-mode=append",
        f"--signal=B:USR1@{job.warn_seconds}",
        f"--output=dgc-{recipe.name}-%j.out",
        *([f"--partition={job.partition}"] if job.partition else []),
        *([f"--account={job.account}"] if job.account else []),
        *job.extra,
    ]
    return [f"#SBATCH {option}" for option in options]


_BODY = r"""
set -u
cd @FOLDER@
PYTHON=@PYTHON@
RUN=@RUN@"$SLURM_JOB_ID"          # a requeued job keeps its id, and so its run directory
mkdir -p "$RUN/control"
rm -f "$RUN/control/stop"
[ -e "$RUN/recipe.yaml" ] || cat > "$RUN/recipe.yaml" <<'@END@'
@RECIPE@
@END@
RESUME=()
[ -e "$RUN/last.json" ] && RESUME=(--resume)

export OMP_NUM_THREADS=@CPUS@
export DGCCTL_TRUST_CODE=@TRUST@   # packages whose code the recipe may run
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
PORT=$((20000 + SLURM_JOB_ID % 20000))

# Slurm warns with USR1 before time is up or the job is preempted; scancel sends TERM. The trainer
# finishes its step, saves and leaves; the job is queued again after a warning, and not after
# scancel.
WARNED=0
trap 'WARNED=1; touch "$RUN/control/stop"' USR1
trap 'touch "$RUN/control/stop"' TERM
# A node that was lost has left its lock. Slurm gave the job to us, so nobody else has the run; what
# still gives a sign is waited for.
"$PYTHON" -m dgcctl.core.launch.lost_node "$RUN"
srun --kill-on-bad-exit=1 "$PYTHON" -m @STARTER@ \
  --nnodes=@NODES@ --nproc-per-node=@RANKS@ --max-restarts=0 \
  --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$HEAD:$PORT" \
  -m dgc.train --run-dir "$RUN" "${RESUME[@]}" &
TRAINER=$!
CODE=0
wait "$TRAINER" || CODE=$?
while kill -0 "$TRAINER" 2>/dev/null; do CODE=0; wait "$TRAINER" || CODE=$?; done

# srun ends with the largest code of all nodes, 143 for one that it ended itself: the run's own
# stands in its status.
SAID=$(sed -n 's/.*"exit_code": *\([0-9][0-9]*\).*/\1/p' "$RUN/status.json" 2>/dev/null)
CODE=${SAID:-$CODE}
if [ "$CODE" -eq 75 ] || { [ "$WARNED" -eq 1 ] && [ "$CODE" -ne 0 ]; }; then
  scontrol requeue "$SLURM_JOB_ID"
  exit 75
fi
exit "$CODE"
"""


def submit(text: str) -> str:
    """Give a script to sbatch; its answer (`Submitted batch job 123`). Raises UsageError where
    there is no sbatch.
    """
    try:
        done = subprocess.run(["sbatch"], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UsageError(
            "sbatch: not found, so there is no Slurm here: --dry-run prints the script"
        ) from None
    if done.returncode:
        raise UsageError(
            f"sbatch refused the job: {' '.join(done.stderr.split()) or 'it said nothing'}"
        )
    return done.stdout.strip()
