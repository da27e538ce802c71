"""Saving and going on: a checkpoint of a session, the newest one back, and what must be the same
for that.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson
import torch

from dgc.errors import DgcError, ResourceError, UsageError
from dgc.hub import foreign
from dgc.hub.card import card_of
from dgc.kernels.cpu import library
from dgc.recipe.load import Recipe, diff_recipes, dump_recipe, parse_recipe
from dgc.run import checkpoint_store, provenance, trusted_code
from dgc.run.events import EventKind, live_rows, read_events
from dgc.run.files import clear_leftovers, free_bytes
from dgc.run.paths import RunDir
from dgc.train import seeding, state
from dgc.train.ranks import Ranks
from dgc.train.recorder import device_name
from dgc.train.session import Session
from dgc.train.step_rows import flush

_RENAMED = ("kernels", "baseline", "neon")  # arm64's one instruction set, before it had its name
_WATCHED_PACKAGES = ("numpy", "pillow", "torchvision")


# --- saving ---------------------------------------------------------------------------------------


def save(session: Session, *, best: bool = False) -> None:
    """Write a checkpoint of this moment, once: a second call at the same place does nothing.

    Collective. Reads the buffer of steps first, so that a diverged state is found before anything
    is written.
    """
    flush(session)
    # the best one is written again: only then is it known that it is the best
    if session.saved_at == session.position and not best:
        return
    # gathered before the first rank writes: a checkpoint holds the random state of every rank
    random_states = session.ranks.gather(seeding.random_state())
    session.ranks.from_first(lambda: _write(session, random_states, best))
    session.saved_at = copy.copy(session.position)
    session.control.saved()


def _write(session: Session, random_states: list[Any], best: bool) -> None:
    began = time.monotonic()
    files = _encode(session, random_states)
    # the log to disk first: a checkpoint whose steps are not in the log could not be told from
    # one of another run
    session.recorder.sync()
    written = checkpoint_store.commit(session.run, session.position.step, files)
    # the pointer second: it never names a folder that is not whole
    checkpoint_store.point_to(session.run.last, written)
    if best and session.progress.best:
        checkpoint_store.point_to(session.run.best, written, **session.progress.best)
    _purge(session)
    _announce(session, written, files, time.monotonic() - began, best)


def _encode(session: Session, random_states: list[Any]) -> dict[str, bytes]:
    extra = {
        "random": random_states,
        "scaler": session.updater.scaler.state_dict(),
        "stands_on": session.resume_fingerprint,
        "card": card_of(session.recipe, session.data_facts).document(),
    }
    averaged = session.ema.tensors() if session.ema is not None else None
    made_of = orjson.dumps(session.structure, option=orjson.OPT_INDENT_2)
    return {
        **state.encode(
            session.module, session.updater.optimizer.state, session.progress, extra, averaged
        ),
        checkpoint_store.STRUCTURE_FILE: made_of,
    }


def rescue(session: Session, folder: Path) -> str:
    """Where the run's folder refuses: write the state elsewhere. Returns what to say about it."""
    rescued, step = RunDir(folder / session.run.id), session.position.step
    try:
        # the random state of this rank alone: the others may be waiting elsewhere
        rescued.checkpoints.mkdir(parents=True, exist_ok=True)
        written = checkpoint_store.commit(rescued, step, _encode(session, [seeding.random_state()]))
    except (OSError, DgcError) as error:
        return f"the rescue folder refused it too ({error})"
    return (
        f"the state of step {step} was rescued to {written.path}: copy it into"
        f" {session.run.checkpoints}"
    )


def _purge(session: Session) -> None:
    recipe = session.recipe.checkpoint
    best = session.progress.best
    # the best one stands outside of the count of the newest
    kept = {best["step"]} if recipe.keep_best and best else set()
    checkpoint_store.purge(session.run, recipe.keep_last, kept)


def _announce(
    session: Session,
    written: checkpoint_store.Checkpoint,
    files: Mapping[str, bytes],
    seconds: float,
    best: bool,
) -> None:
    session.recorder.event(
        EventKind.CHECKPOINT,
        step=written.step,
        epoch=session.position.epoch,
        path=f"checkpoints/{written.path.name}",
        bytes=sum(map(len, files.values())),
        ms=round(1000 * seconds, 1),
        best=best,
    )


def preflight(session: Session) -> None:
    """Before the first step: is there room for the checkpoints
    that will stand at once? Raises ResourceError.
    """
    tensors = [*session.module.parameters(), *session.module.buffers()]
    kept = [*session.updater.optimizer.state.values(), session.ema.tensors() if session.ema else {}]
    tensors += [tensor for kind in kept for tensor in kind.values()]
    one = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    # one more than are kept: the new one is whole before an old one goes
    needed = one * (session.recipe.checkpoint.keep_last + session.recipe.checkpoint.keep_best + 1)
    if (free := free_bytes(session.run.path)) < needed:
        raise ResourceError(
            f"{session.run.path}: {free:,} bytes free, but the checkpoints of this recipe need"
            f" {needed:,} ({one:,} each): make room, choose another DGCCTL_RUNS_DIR, or lower"
            " checkpoint.keep_last"
        )


# --- going on -------------------------------------------------------------------------------------


def begin(session: Session) -> None:
    """The first checkpoint, of step 0: from here on a kill at any moment can be resumed."""
    if standing := checkpoint_store.list_checkpoints(session.run):
        raise UsageError(
            f"{session.run.path} holds {standing[-1].path.name} already: go on with --resume, or"
            " start a new run"
        )
    preflight(session)
    session.recorder.event(
        EventKind.START,
        recipe=session.recipe.digest(),
        world_size=session.ranks.world,
        steps=session.last_step,
        epochs=session.recipe.train.epochs,
        resumed=False,
    )
    save(session)


def resume(session: Session) -> None:
    """Go on from the newest whole checkpoint, as if the run had never stopped.

    Raises UsageError (no checkpoint; or something changed and was not allowed to), IntegrityError
    (none is whole).
    """
    # one rank decides for all: each for itself might find another one newest on a slow file system
    found, files, passed_over, differences = session.ranks.from_first(lambda: _newest(session))
    progress, saved = state.decode_state(files)
    _load(session, files, progress, saved, str(found.path))
    # a resumed run carries its notes on: once not exact, it stays so
    progress.notes += (
        [f"not exact from step {progress.position.step}: {'; '.join(differences)}"]
        if differences
        else []
    )
    session.ranks.from_first(lambda: _record_resume(session, found, passed_over, differences))


def _newest(
    session: Session,
) -> tuple[checkpoint_store.Checkpoint, dict[str, bytes], list[str], list[str]]:
    """The checkpoint to go on from, its files, what was passed over,
    and the changes since (if they are allowed).
    """
    newest = checkpoint_store.newest_valid(session.run)
    if newest is None:
        raise UsageError(
            f"{session.run.path}: no checkpoint to resume from, nothing was trained yet: start"
            f" afresh with `python -m dgc.train --run-dir {session.run.path}` (or `dgcctl train`)"
        )
    differences = describe_changes(
        state.decode_state(newest[1])[1]["stands_on"], session.resume_fingerprint
    )
    if differences and not session.options.allow_change:
        raise UsageError(
            f"{session.run.id} cannot go on exactly: {'; '.join(differences)}: undo that, or pass"
            " --allow-change (the run is then marked 'not exact')"
        )
    return *newest, differences


def _load(
    session: Session,
    files: Mapping[str, bytes],
    progress: state.Progress,
    saved: Mapping[str, Any],
    origin: str,
) -> None:
    # weights and the optimizer's state, then what moves on from them: scaler, random state, place
    state.restore(files, session.module, session.updater.optimizer.state, origin)
    if session.ema is not None:
        session.ema.load(state.averaged_weights(files, session.ema.tensors(), origin))
    session.updater.scaler.load_state_dict(saved["scaler"])
    # fewer ranks than before leave states over, more ranks begin with their own
    if session.ranks.rank < len(saved["random"]):
        seeding.restore_random_state(saved["random"][session.ranks.rank])
    # another number of threads sums in another order: the run keeps the one that it began with
    if session.recipe.train.threads is None and session.ranks.device.type == "cpu":
        torch.set_num_threads(saved["stands_on"]["threads"])
        session.resume_fingerprint["threads"] = saved["stands_on"]["threads"]
    session.progress = progress
    session.saved_at = copy.copy(progress.position)


def _record_resume(
    session: Session,
    found: checkpoint_store.Checkpoint,
    passed_over: list[str],
    differences: list[str],
) -> None:
    """Write down where the run goes on, and take its curves from its log."""
    position = session.position
    for text in passed_over:
        session.recorder.log(f"passed over a damaged checkpoint: {text}", "warning")
    if passed_over:
        session.recorder.log(f"going on from {found.path.name} instead", "warning")
    # what lies behind this checkpoint belongs to a history that is now given up
    checkpoint_store.set_aside_after(session.run, found.step)
    best = (session.recipe.checkpoint.keep_best and session.progress.best) or {"step": None}
    checkpoint_store.repair_pointer(session.run, session.run.last, found.step)
    checkpoint_store.repair_pointer(session.run, session.run.best, **best)
    session.recorder.event(
        EventKind.RESUME,
        step=position.step,
        closed=position.batch == 0,
        exact=not session.progress.notes,
        differences=differences,
    )
    session.recorder.restore_curves(live_rows(read_events(session.run)))
    session.recorder.set_note(session.progress.notes)
    session.recorder.log(f"resumed from {found.path.name}")


def resume_fingerprint(
    recipe: Recipe,
    ranks: Ranks,
    data_facts: Mapping[str, Any],
    layout: str,
    amp: str,
    taught: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """What must be the same for a resumed run to compute the same."""
    named = (recipe.model.name, recipe.data.name)
    return {
        "recipe": dump_recipe(recipe),
        "memory_format": layout,
        "amp": amp,
        "data": data_facts.get("digest"),
        "code": provenance.code_digest(),
        "world_size": ranks.world,
        "torch": torch.__version__,
        "device": device_name(ranks.device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **library.facts(),
        "threads": torch.get_num_threads(),
        "packages": {name: metadata.version(name) for name in _WATCHED_PACKAGES}
        | foreign.library(recipe.model.name),
        **taught,
        **({"own_code": trusted_code.facts(named)} if any(map(trusted_code.is_own, named)) else {}),
    }


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each difference that can change results, in words;
    threads are put back to what they were instead.
    """
    # read by today's schema: a key that the older recipe did not know has its default there
    recipes = [parse_recipe(facts["recipe"], "recipe.yaml") for facts in (before, now)]
    changes = [
        f"{key} was {old!r}, is {new!r}" for key, old, new in diff_recipes(*recipes, semantic=True)
    ]
    # an older checkpoint may lack a key: that counts as a change, since nobody knows
    for key in ("world_size", "torch", "device", "cpu_capability", "kernels"):
        if before.get(key) != now[key] and (key, before.get(key), now[key]) != _RENAMED:
            changes.append(f"{key} was {before.get(key, 'not recorded')}, is {now[key]}")
    changes += [
        f"{key} was {before[key]}, is {now[key]}"
        for key in ("memory_format", "amp")  # older checkpoints say them in their recipe
        if key in before and key in now and before[key] != now[key]
    ]
    built = "kernels_built_from"  # another compiler; not recorded in the beginning
    if built in before and built in now and before[built] != now[built]:
        changes.append(f"kernels built from {before[built]}, now from {now[built]}")
    changes += [
        f"{key} digest was {before[key][:12]}, is {now[key][:12]}"
        for key in ("data", "code")
        if before[key] != now[key]
    ]
    old, new = (facts.get("teacher", {}).get("sha256", "none")[:12] for facts in (before, now))
    changes += [f"teacher digest was {old}, is {new}"] if old != new else []
    own = [facts.get("own_code", {}) for facts in (before, now)]
    changes += trusted_code.differences(*own)
    # as above: what was not recorded counts as changed
    for name, version in now["packages"].items():
        if before["packages"].get(name) != version:
            changes.append(f"{name} was {before['packages'].get(name)}, is {version}")
    return changes


def clean_up(run: RunDir) -> None:
    """Clear what dead writers left half done."""
    run.checkpoints.mkdir(exist_ok=True)
    run.control.mkdir(exist_ok=True)
    # under the lock, so that no half-written file of a living writer is among them
    for folder in (run.path, run.checkpoints, run.gates, run.file("plots")):
        clear_leftovers(folder)
