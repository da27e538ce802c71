"""A trainer run to its end without anybody watching."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from dgc.records import RunDir
from dgcctl.core import launch, outcome


def run_to_end(run: RunDir, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Start a trainer on a run, pass signals on, wait. Raises its error."""
    began = time.time()
    with launch.start_training(run, command, env=env) as process, launch.forwarding(process):
        code = process.wait()
    error = outcome.failure(run, code, began)
    if error is not None:
        outcome.settle(run, error)
        raise error
