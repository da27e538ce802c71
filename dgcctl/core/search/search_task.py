"""`python -m dgcctl.core.search.search_task SEARCH TRIALS`: one trial of a search, as a Slurm task.

Which trial is decided when the task begins: one that was left first, else the next that Optuna
draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dgc.errors import DgcError, ExitCode
from dgcctl.core.launch import slurm_array
from dgcctl.core.search.study import open_search
from dgcctl.core.search.worker import work
from dgcctl.core.sweep.sweep_task import SIGNALS


def main(arguments: Sequence[str], say: Callable[[str], None] = print) -> int:
    """What it says goes to the task's file, slurm-JOB_TASK.out beside the plan."""
    try:
        found = open_search(Path(arguments[0]))
        outcome = work(found, trials=int(arguments[1]), most=1, signals=SIGNALS)
    except DgcError as error:
        say(f"error: {error}")
        return int(error.exit_code)
    if outcome.interrupted == ExitCode.PREEMPTED:
        say(slurm_array.queue_again())
    if outcome.lacking:
        say(f"error: {outcome.lacking}")
    bad = outcome.left or outcome.lacking
    return outcome.interrupted or int(ExitCode.FAILED if bad else ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
