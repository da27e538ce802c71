"""From a run directory to a session and through it: the order in which things are opened, and how
they end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from dgc import settings
from dgc.errors import (
    DataError,
    DgcError,
    ExitCode,
    InterruptedRunError,
    PreemptedError,
    UsageError,
)
from dgc.hub import foreign, initial, recorded_networks
from dgc.kernels.cpu import library
from dgc.recipe import own_values
from dgc.recipe.load import Recipe, as_record, check_world_size, load_recipe
from dgc.run import provenance, trusted_code
from dgc.run.checkpoint_store import list_checkpoints, structure_of
from dgc.run.files import write_json
from dgc.run.lock import run_lock
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgc.train import build, mixed_precision, recorder, save, seeding
from dgc.train.costs import CostMeter
from dgc.train.distillation import find_teacher, open_teacher
from dgc.train.ema import WeightAverage
from dgc.train.explain import explained
from dgc.train.loop import train
from dgc.train.memory_format import choose
from dgc.train.ranks import Ranks, join
from dgc.train.recorder import Recorder
from dgc.train.requests import Control
from dgc.train.session import Options, Session, make_updater
from dgc.train.signals import Signals
from dgc.train.step_buffer import StepBuffer


def run_training(run: RunDir, options: Options, signals: Signals) -> None:
    """Train, or go on training, the run in its directory.
    Raises DgcError for everything a user can meet.
    """
    recipe = build.at_its_place(load_recipe(run.recipe), run.data, options.data_dir)
    # before anything is computed, and before ranks meet: threads and determinism hold for all
    switches = recipe.train
    seeding.set_switches(
        deterministic=switches.deterministic,
        threads=switches.threads,
        compiled=switches.compile is True,
        tf32=switches.tf32,
    )
    with (
        join(recipe.train.device) as ranks,
        owned(run, ranks),
        recorded(run, ranks, recipe) as recorder,
    ):
        check_world_size(recipe, ranks.world)
        session = prepare(run, recipe, ranks, options, signals, recorder)
        with explained(session):
            write_records(session)
            load_or_start(session)
            if not options.resume:
                log_notes(session)
            update_status(session)
            train(session)
        # all is written; a signal now would only change the exit code of a finished run
        signals.ignore()


@contextmanager
def owned(run: RunDir, ranks: Ranks) -> Iterator[None]:
    """The first rank holds the run's lock; leftovers of dead writers are cleared under it."""
    with ExitStack() as stack:
        if ranks.first:
            # the lock first: leftovers of a writer that still lives are not ours to clear
            note = stack.enter_context(run_lock(run))
            save.clean_up(run)
            if note:
                provenance.append_log(run, f"warning: {note}")
        yield


@contextmanager
def recorded(run: RunDir, ranks: Ranks, recipe: Recipe) -> Iterator[Recorder]:
    """A recorder whose last word is how the block ended."""
    recorder = Recorder(run, ranks, recipe)
    recorder.open()
    try:
        yield recorder
    except (PreemptedError, InterruptedRunError) as error:
        recorder.close(State.STOPPED, str(error), int(error.exit_code))
        raise
    except DgcError as error:
        # a resume that was refused has changed nothing, so the run keeps the end that it had
        if recorder.is_resumed and not recorder.begun:
            recorder.withdraw()
        else:
            recorder.close(State.FAILED, str(error), int(error.exit_code))
        raise
    except BaseException as error:
        recorder.close(State.FAILED, f"{type(error).__name__}: {error}", int(ExitCode.FAILED))
        raise
    recorder.close(State.DONE)


def prepare(
    run: RunDir,
    recipe: Recipe,
    ranks: Ranks,
    options: Options,
    signals: Signals,
    recorder: Recorder,
) -> Session:
    """Data, model, optimizer and what watches over them. All ranks start from the same weights."""
    build.check_backend(recipe, ranks.device)
    build.check_compile(recipe, ranks.device, ranks.world)
    # before any data is touched, which may be downloaded first: what the recipe names beside it
    foreign.check_name(recipe.model.name)
    begun = options.resume and bool(list_checkpoints(run))
    if recipe.model.init is not None and not begun:
        # a run that has a checkpoint needs its first
        # weights no more, nor the file that they were in
        initial.require_file(recipe)
    teacher_file = find_teacher(recipe)
    # the first rank alone at first: it may download and unpack what the others then find
    images = ranks.alone_first(lambda: build.open_data(recipe))
    data = build.build_data(recipe, ranks.device, ranks.rank, ranks.world, images)
    teacher = open_teacher(teacher_file, recipe, images, ranks.device)
    # after data and teacher: however they are opened, the same seed gives the same first weights
    seeding.seed_everything(recipe.seed)
    layout = choose(recipe, ranks.device, run if options.resume else None)
    precision = mixed_precision.choose(recipe, ranks.device, run if options.resume else None)
    fresh = None if begun else recorded_networks.fresh(recipe)
    model = recorded_networks.recorded(recipe, structure_of(run)) if fresh is None else fresh.model
    structure = recorded_networks.document(model, recipe)
    module = build.placed(model, recipe, ranks.device, ranks.world, layout)
    decay = recipe.train.ema_decay
    taught = {"teacher": teacher.facts} if teacher else {}
    return Session(
        run=run,
        recipe=recipe,
        ranks=ranks,
        options=options,
        updater=make_updater(recipe, ranks, module, layout, precision.amp, teacher),
        meter=CostMeter(module, recipe.data.image_size),
        train=data.train,
        val=data.val,
        samples=data.train_samples,
        eval_samples=data.val_samples,
        data_facts=data.facts,
        notes=[*images.notes(), *last_batch(recipe, data), *precision.notes(recipe.train.amp)],
        control=Control(run, ranks, signals, recipe.checkpoint),
        recorder=recorder,
        steps=StepBuffer(recipe.train.log_every, ranks),
        resume_fingerprint=save.resume_fingerprint(
            recipe, ranks, data.facts, layout, precision.amp, taught
        ),
        layout=layout,
        ema=None if decay is None else WeightAverage(module, decay),
        structure=structure,
        made={**recorded_networks.how_made(fresh), **taught},
    )


def write_records(session: Session) -> None:
    """env.json, data.json, model.json, and the code's record where nobody wrote one."""
    session.control.clear()
    if session.ranks.first:
        provenance.record_code(session.run)
        write_json(session.run.recipe_json, as_record(session.run.recipe), point="record")
        if old := library.stale():
            session.recorder.log(old, "warning")
        recorder.write_once(session.run.env, recorder.environment(session.recipe, session.ranks))
        recorder.write_once(session.run.data, session.data_facts)
        model = recorder.model_facts(
            session.recipe, session.module, session.layout, session.updater.amp
        )
        recorder.write_once(session.run.model, {**model, **session.made})
        write_own_code(session)


def write_own_code(session: Session) -> None:
    """own_code.json and copies, of a recipe that names code of the user's."""
    own = session.resume_fingerprint.get("own_code")
    if own and not session.run.own_code.exists():
        copies, secrets = session.run.own_code_copies, settings.record_secrets()
        told = trusted_code.with_copies(own, copies, secrets=secrets)
        recorder.write_once(session.run.own_code, {"packages": told})


def load_or_start(session: Session) -> None:
    """The state to start from. A run that is refused,
    because it cannot go on like this, stays as it was.
    """
    try:
        (save.resume if session.options.resume else save.begin)(session)
    except UsageError:
        session.recorder.withdraw()
        raise
    session.recorder.begun = True


def log_notes(session: Session) -> None:
    """Write down at the start what of the recipe,
    of its folder and of its last batch is not used.
    """
    for line in own_values.notes(session.recipe.origin):
        session.recorder.log(line)
    for level, line in session.notes:
        session.recorder.log(line, level)
    for line in recorded_networks.told(session.made):
        session.recorder.log(line)


def last_batch(recipe: Recipe, data: build.Data) -> list[tuple[str, str]]:
    """A note where the last batch of an epoch is too small to train on.
    Raises DataError where it is the only one.
    """
    if not len(data.train):
        raise DataError(
            f"{data.train_samples} training images are too few: batch normalisation needs two in a"
            " batch, for each process and each part of train.accumulate ="
            f" {recipe.train.accumulate}"
        )
    left = data.train_samples - len(data.train) * recipe.train.batch_size
    if left <= 0:
        return []
    text = (
        f"the last batch of an epoch would hold {left} of {data.train_samples:,} images, too few"
        " for batch "
    )
    text += (
        "normalisation: it is left out, others each epoch (train.batch_size ="
        f" {recipe.train.batch_size})"
    )
    return [("warning", text)]


def update_status(session: Session) -> None:
    status = session.recorder.status
    status.step, status.steps = session.position.step, session.last_step
    status.epoch, status.epochs = session.position.epoch, session.recipe.train.epochs
    session.recorder.write_status()


def exit_code(error: BaseException) -> int:
    """The code a process ends with for an error."""
    if isinstance(error, DgcError):
        return int(error.exit_code)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return int(ExitCode.RESOURCES)
    return int(ExitCode.FAILED)
