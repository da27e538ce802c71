"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from dgc.errors import DivergedError
from dgc.layers import record_gates
from dgc.run.events import EventKind
from dgc.run.files import crash_point, write_json
from dgc.run.metrics import StepInfo
from dgc.run.trusted_code import trust_words_of
from dgc.train import recorder
from dgc.train.divergence import diverged_in_evaluation, unanswered
from dgc.train.evaluation import EvaluationStoppedError, Figures, evaluate
from dgc.train.evaluation_record import record_evaluation, write_result, write_verdict
from dgc.train.gate_map import gate_map
from dgc.train.save import save
from dgc.train.session import Session
from dgc.train.signals import Stop
from dgc.train.step_rows import flush, restart_clock


def train(session: Session) -> None:
    """From where the session stands to the end of the recipe.
    Raises what Stop.error gives when asked to stop.
    """
    # closing is apart from training: a run that was killed between the two comes back to the second
    while not session.finished:
        train_epoch(session)
        close_epoch(session)
    finish(session)


def train_epoch(session: Session) -> None:
    """The remaining steps of the present epoch, and between two of them what was asked for."""
    if session.position.batch == 0:
        # only at its beginning: a resumed epoch goes on adding to the sums of its checkpoint
        session.progress.epoch_sums = {}
    if session.epoch_trained:
        return
    session.module.train()
    restart_clock(session)
    for images_BCHW, labels_B, _ in timed_batches(
        session, session.train.epoch(session.position.epoch, session.position.batch)
    ):
        train_step(session, images_BCHW, labels_B)
        # requests are polled by close_epoch too, where an evaluation and a save may come first
        if session.epoch_trained:
            break
        poll_requests(session)


def timed_batches(session: Session, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches, with the time spent waiting for them added up."""
    while True:
        # next() instead of a for: what is timed is the wait alone, not the step that follows
        began = time.monotonic()
        batch = next(batches, None)
        session.waited += time.monotonic() - began
        if batch is None:
            return
        yield batch


def train_step(session: Session, images_BCHW: Tensor, labels_B: Tensor) -> None:
    """One update; its metrics stay on the device until the buffer is full."""
    position = session.position
    p, lr = session.schedule()
    samples = session.global_batch(position.batch)
    mix = session.mix(position.epoch, position.batch)
    row = session.updater.step(images_BCHW, labels_B, lr, p, samples, mix)
    # the step counts as soon as it is handed to the device
    position.step += 1
    if session.ema is not None:
        session.ema.update(position.step)
    info = StepInfo(
        position.step,
        position.epoch,
        position.batch,
        p,
        lr,
        session.updater.inactive,
        samples,
        session.recipe.optim.gate_l1,
    )
    session.steps.add(info, row)
    position.batch += 1
    # the status names the step before its figures are known: they are on the device still
    session.recorder.status.step = position.step
    crash_point("train.step")
    if session.steps.full:
        flush(session)


def poll_requests(session: Session) -> None:
    """Between two steps: stop or save where that was asked for or is due."""
    request = session.control.poll()
    if request.stop:
        save_and_stop(session, request.stop)
    if request.save or session.control.due(session.position.step):
        save(session)
        restart_clock(session)


def save_and_stop(session: Session, stop: Stop) -> None:
    # the request is met only once the state is safe
    save(session)
    session.control.clear()
    trust = trust_words_of(session.run.recipe_json)
    raise stop.error(session.position.step, session.run.id, trust)


# --- the end of an epoch --------------------------------------------------------------------------


def close_epoch(session: Session) -> None:
    """Evaluate, write the epoch's rows, move on to the next epoch, save.

    An evaluation that is broken off leaves the epoch open: a resumed run evaluates again, and no
    row stands twice.
    """
    # a diverged step is found here, before its network is evaluated
    flush(session)
    crash_point("train.epoch-end")
    figures = evaluate_if_due(session)
    write_rows(session, figures)
    # asked of the step that was just made; the epoch moves on first, so that a checkpoint of this
    # moment says that it is closed
    save_due = session.control.due(session.position.step)
    session.position.epoch += 1
    session.position.batch = 0
    crash_point("train.epoch-closed")
    session.recorder.status.epoch = session.position.epoch
    # before the requests: a checkpoint written below holds what is best so far
    best = figures is not None and take_best(session, figures)
    request = session.control.poll()
    if best or save_due or session.finished or request.save:
        save(session, best=best)
    # at the end nothing is left to stop; the run is done, not stopped
    if request.stop and not session.finished:
        save_and_stop(session, request.stop)


def with_crash_point(name: str, value: Any) -> Any:
    """A named crash point inside an expression."""
    crash_point(name)
    return value


def evaluation_due(session: Session) -> bool:
    done = session.position.epoch + 1
    return (
        done % session.recipe.eval.every_epochs == 0 or session.position.step >= session.last_step
    )


def evaluate_if_due(session: Session) -> Figures | None:
    """Figures; None where none are due,
    or where the network answers NaN though its training is finite.

    BatchNorm's running statistics lag behind weights that move fast, and gates, which nothing
    bounds, can make numbers overflow by them alone. A later epoch often recovers, so the training
    goes on without a figure; the last evaluation is its result, and ends it.
    """
    if not evaluation_due(session):
        return None
    try:
        return evaluate_epoch(session)
    except DivergedError as error:
        if session.position.step >= session.last_step:
            # the epoch stays open: a resumed run evaluates again
            save(session)
            raise diverged_in_evaluation(session, error) from error
        session.recorder.log(unanswered(session, error), "warning")
        return None


def evaluate_epoch(session: Session) -> Figures:
    """Figures on the validation set, of the averaged weights too,
    and the gate map of this epoch.
    """
    asked = Stop.NO

    def stop() -> bool:
        nonlocal asked
        # every rank asks at the same rounds, so that all leave at the same one
        asked = session.control.poll().stop
        return asked is not Stop.NO

    def figures() -> Figures:
        batches = (with_crash_point("train.evaluate", batch[:2]) for batch in session.val.epoch())
        return evaluate(session.module, batches, session.eval_samples, session.ranks, stop=stop)

    # each rank's BatchNorms have seen its own part of the last batch; a checkpoint has the first
    # rank's statistics, and what is measured must be what is saved
    session.ranks.spread_(session.module.buffers())
    try:
        with record_gates(session.module) as records:
            found = figures()
        if session.ema is not None:
            session.ranks.spread_(session.ema.tensors().values())
            with session.ema.in_its_place():
                # the same modules with other numbers in them: nothing is built or compiled anew
                found = found.beside(figures())
    # outside of the `with`: gates are not recorded any
    # more, averaged weights are back in their place
    except EvaluationStoppedError:
        save_and_stop(session, asked)
    if records:
        write_gate_map(session, records)
    return found


def write_gate_map(session: Session, records: Any) -> None:
    first = session.ranks.first
    macs = recorder.layer_macs(session.module, session.meter.now()) if first else {}
    layers = gate_map(session.module, records, macs, session.ranks)
    if session.ranks.first:
        epoch, step = session.position.epoch + 1, session.position.step
        path = session.run.gates / f"epoch-{epoch:04d}.json"
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"epoch": epoch, "step": step, "layers": layers}, point="gates")
        session.recorder.event(EventKind.GATES, epoch=epoch, step=step, file=f"gates/{path.name}")


def write_rows(session: Session, figures: Figures | None) -> None:
    """The EPOCH event, and the evaluation where there was one."""
    sums = session.progress.epoch_sums
    train_loss, train_error = (sums[key] / sums["samples"] for key in ("loss", "wrong"))
    session.recorder.event(
        EventKind.EPOCH,
        epoch=session.position.epoch + 1,
        step=session.position.step,
        train_loss=train_loss,
        train_error=100 * train_error,
    )
    if figures is not None:
        record_evaluation(session, figures)


def take_best(session: Session, figures: Figures) -> bool:
    """Remember the best evaluation; True where this is one and the recipe keeps it."""
    best = session.progress.best
    if best is not None and best["value"] <= figures.top1_error:
        # a tie keeps the older one, which took fewer steps
        return False
    session.progress.best = {
        "step": session.position.step,
        "metric": "top1_error",
        "value": figures.top1_error,
    }
    return session.recipe.checkpoint.keep_best


def finish(session: Session) -> None:
    """The verdict. A run that was killed in here does it once more when resumed."""
    # an exchange that is still in flight would meet a group that is gone
    session.control.settle()
    crash_point("train.finish")
    # ranks other than the first write nothing; a run without an evaluation has nothing to judge
    if not session.recorder.active or session.progress.last_eval is None:
        return
    session.recorder.write_curves()
    write_result(session)
    write_verdict(session)
    session.recorder.log(f"done: {session.position.step} steps")
