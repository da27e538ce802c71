"""Reading the buffer of steps: STEP rows, throughput, and the end of a run that diverged."""

from __future__ import annotations

import time

from dgc.run.events import EventKind
from dgc.train.divergence import diverged
from dgc.train.recorder import memory_facts
from dgc.train.session import Session
from dgc.train.step_buffer import logged_row


def flush(session: Session) -> None:
    """Read the buffer and write its rows. Collective.

    Raises DivergedError at the first step whose loss or gradient was not finite; the rows up to it
    are written, and nothing has been updated since.
    """
    if not len(session.steps):
        return
    written = []
    bad = None
    for info, values in session.steps.read():
        written.append(logged_row(info, values))
        # the row of the bad step is written too; what follows it was never computed
        if values["bad"]:
            bad = info, values
            break
        # the log stays whole up to the bad step, the sums of the epoch leave it out
        _count(session, values["loss"], values["wrong"], info.samples)
    session.recorder.rows(written)
    if bad is not None:
        raise diverged(session, *bad)
    _report_speed(session, len(written))


def _count(session: Session, loss: float, wrong: float, samples: int) -> None:
    # weighed by samples: the last batch of an epoch may be short
    sums = session.progress.epoch_sums
    for key, value in (("loss", loss * samples), ("wrong", wrong), ("samples", samples)):
        sums[key] = sums.get(key, 0.0) + value


def _report_speed(session: Session, steps: int) -> None:
    # of all steps since the last look; a clock a step would make the device wait
    now, computed = time.monotonic(), time.process_time()
    # two looks may fall into one tick of the clock
    seconds = max(now - session.steps_began, 1e-9)
    per_step = seconds / steps
    session.recorder.event(
        EventKind.PERF,
        step=session.position.step,
        images_per_s=session.recipe.train.batch_size / per_step,
        step_ms=1000 * per_step,
        data_ms=1000 * session.waited / steps,
        eta_s=per_step * (session.last_step - session.position.step),
        cpu=100 * (computed - session.cpu_began) / seconds,
        **memory_facts(session.ranks),
    )
    session.steps_began, session.cpu_began, session.waited = now, computed, 0.0


def restart_clock(session: Session) -> None:
    """Leave what was not training (an evaluation, a checkpoint) out of the throughput."""
    session.steps_began, session.cpu_began = time.monotonic(), time.process_time()
    session.waited = 0.0
