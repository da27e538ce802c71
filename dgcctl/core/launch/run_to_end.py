"""A trainer run to its end; who wants to watch it is asked to look now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from dgc.run import oom
from dgc.run.paths import RunDir
from dgcctl.core.launch import launcher, outcome

POLL_SECONDS = 0.05


class Onlooker(Protocol):
    """Shows how far a run is."""

    def look(self) -> None: ...
    def clear(self) -> None: ...


def run_to_end(
    run: RunDir,
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    onlooker: Onlooker | None = None,
) -> None:
    """Start a trainer on a run, pass signals on, wait. Raises its error."""
    # both before the start: what was there already is no sign of this end
    began, starved = time.time(), oom.kills()
    with launcher.hearing() as heard, launcher.start_training(run, command, env=env) as process:
        # after the start only: what was heard meanwhile is passed on now
        heard.attach(process, run)
        while (code := process.poll()) is None:
            if onlooker is not None:
                onlooker.look()
            heard.deliver()
            time.sleep(POLL_SECONDS)
    # once more: the last figures came after the last look
    if onlooker is not None:
        onlooker.look()
        onlooker.clear()
    # before the outcome: a run that never began has no end of its own to tell
    heard.raise_if_given_up()
    error = outcome.failure(run, code, began, starved=oom.kills() > starved)
    if error is not None:
        outcome.settle(run, error)
        raise error
