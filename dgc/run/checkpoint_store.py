"""Checkpoints on disk: bytes and digests, committed so that a kill at any moment loses at most the
one in flight.

    checkpoints/step-000123/{model.safetensors, optim.safetensors, structure.json, state.json,
                             MANIFEST.json}     (of a script: see script_checkpoint)
    last.json, best.json        pointers {step, path}, written after what they point to

Commit: temporary folder, every file fsynced, folder fsynced, renamed, parent fsynced; then the
pointer. No torch here: what the bytes mean is dgc.train.state's business, and the tests kill this
writer five hundred times.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from dgc.errors import IntegrityError, ResourceError, UsageError
from dgc.run.files import (
    SCHEMA_VERSION,
    crash_point,
    free_bytes,
    fsync_dir,
    open_regular,
    read_json,
    remove_tree,
    temporary_name,
    write_durably,
    write_json,
)
from dgc.run.paths import RunDir

MANIFEST = "MANIFEST.json"
MODEL_FILE, OPTIM_FILE, STATE_FILE = "model.safetensors", "optim.safetensors", "state.json"
EMA_FILE = "ema.safetensors"  # the averaged weights, where the recipe asks for them
STRUCTURE_FILE = "structure.json"  # what the network is made of, see dgc.hub.recorded_networks
_STEP = re.compile(r"step-(\d{6,})(\.old)?")


@dataclass(frozen=True)
class Checkpoint:
    """One committed folder. `superseded`:
    a newer one of the same step was being put in its place.
    """

    path: Path
    step: int
    superseded: bool = False


_THEN = (
    "make room or make the folder writable, then `dgcctl resume` (or keep the state elsewhere with"
    " --rescue-dir)"
)


def commit(run: RunDir, step: int, files: Mapping[str, bytes], *, then: str = _THEN) -> Checkpoint:
    """Write one checkpoint, all of it or nothing;
    its name is visible only when its bytes are on the disk.

    Raises ResourceError (path, bytes needed and free) where the disk refuses; older checkpoints
    stay.
    """
    target = run.checkpoints / f"step-{step:06d}"
    temporary = run.checkpoints / temporary_name(target.name)
    try:
        crash_point("checkpoint.begin")
        # A folder of its own, under a name that no reader takes for a checkpoint: whatever kills
        # us from here on leaves either nothing or all of it.
        temporary.mkdir()
        _write_files(temporary, step, files)
        crash_point("checkpoint.before-rename")
        _put_in_place(temporary, target)
    except OSError as error:
        remove_tree(temporary)
        raise refused(error, target, sum(map(len, files.values())), then) from error
    return Checkpoint(target, step)


def _write_files(folder: Path, step: int, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        write_durably(folder / name, data, point=f"checkpoint.{name.split('.')[0]}")
    # Last: a folder without its list is no checkpoint, so the list must not be there before what
    # it lists.
    write_durably(folder / MANIFEST, encode_manifest(step, files), point="checkpoint.manifest")
    fsync_dir(folder)


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename; an older folder of the same step steps aside under a name that readers still know."""
    aside = target.with_name(target.name + ".old")
    if target.exists():
        remove_tree(aside)
        # A folder cannot be renamed over one that is not empty. Between these two renames the
        # step stands under the name `.old` alone, which `list_checkpoints` knows.
        os.rename(target, aside)
        crash_point("checkpoint.set-aside")
    os.rename(temporary, target)
    crash_point("checkpoint.after-rename")
    # The name is durable now, and only now may a pointer say it, or the older folder go.
    fsync_dir(target.parent)
    crash_point("checkpoint.after-fsync-parent")
    if aside.exists():
        remove_tree(aside)


def refused(error: OSError, target: Path, needed: int, then: str = _THEN) -> ResourceError:
    """The one line for a disk or a folder that does not take a checkpoint."""
    return ResourceError(
        f"{target}: checkpoint not written, {needed:,} bytes needed, {free_bytes(target):,} free"
        f" ({os.strerror(error.errno or 0)}); earlier checkpoints are untouched: {then}"
    )


def encode_manifest(step: int, files: Mapping[str, bytes]) -> bytes:
    """Digests of all files, and a digest over those,
    so that the list itself cannot be edited unnoticed.
    """
    listed = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    body = {"schema_version": SCHEMA_VERSION, "step": step, "files": listed}
    return orjson.dumps(body | {"sha256": _manifest_digest(body)}, option=orjson.OPT_INDENT_2)


def _manifest_digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(dict(body), option=orjson.OPT_SORT_KEYS)).hexdigest()


# --- reading --------------------------------------------------------------------------------------


def list_checkpoints(run: RunDir) -> list[Checkpoint]:
    """What stands there, oldest first, unchecked."""
    found = []
    # a run that never began has no such folder, which is no fault
    for entry in run.checkpoints.iterdir() if run.checkpoints.is_dir() else []:
        if match := _STEP.fullmatch(entry.name):
            found.append(Checkpoint(entry, int(match[1]), bool(match[2])))
    # of one step the superseded folder comes first, so
    # that going backwards meets the newer one first
    return sorted(found, key=lambda checkpoint: (checkpoint.step, not checkpoint.superseded))


def read_manifest(path: Path) -> dict[str, Any]:
    """The checked list of a checkpoint's files. Raises IntegrityError naming what is wrong."""
    try:
        manifest = read_json(path / MANIFEST)
    except OSError as error:
        raise IntegrityError(
            f"{path}: {MANIFEST} cannot be read ({os.strerror(error.errno or 0)})"
        ) from error
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    if manifest.get("sha256") != _manifest_digest(body):
        raise IntegrityError(
            f"{path}: {MANIFEST} was changed after it was written (its own digest does not match)"
        )
    match = _STEP.fullmatch(path.name)
    if match and int(match[1]) != manifest["step"]:
        raise IntegrityError(f"{path}: {MANIFEST} belongs to step {manifest['step']}")
    return manifest


def read_verified(path: Path, names: Collection[str] | None = None) -> dict[str, bytes]:
    """The bytes of all files of a checkpoint (or of those of `names` that it has), each checked
    against its digest (IntegrityError names the file).
    """
    return {
        name: _read_checked(path / name, facts)
        for name, facts in read_manifest(path)["files"].items()
        if names is None or name in names
    }


def _read_checked(path: Path, facts: Mapping[str, Any]) -> bytes:
    try:
        # The size first: a file that was cut is told by its length, without reading it all.
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read() if size == facts["bytes"] else b""
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from error
    if size != facts["bytes"]:
        raise IntegrityError(f"{path}: {size:,} bytes where {facts['bytes']:,} were written")
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise IntegrityError(f"{path}: SHA-256 differs from {MANIFEST}")
    return data


def newest_valid(run: RunDir) -> tuple[Checkpoint, dict[str, bytes], list[str]] | None:
    """The newest checkpoint that is whole, its bytes, and why newer ones were passed over.

    None where no checkpoint stands at all; IntegrityError where all are bad (never a silent start
    from nothing).
    """
    passed_over: list[str] = []
    # By what is there, not by last.json: the pointer is written after its checkpoint, so a kill
    # in between leaves a newer one that it does not name.
    for checkpoint in reversed(list_checkpoints(run)):
        try:
            return checkpoint, read_verified(checkpoint.path), passed_over
        except IntegrityError as error:
            passed_over.append(str(error))
    # There was a checkpoint once. To begin anew without a word would throw a training away; a
    # person may still know a way.
    if passed_over:
        raise IntegrityError(
            f"{run.checkpoints}: no checkpoint is whole, not going on: " + "; ".join(passed_over)
        )
    return None


def checkpoint_folder(run: RunDir, step: str = "last") -> Path:
    """The folder of a checkpoint by `best`, `last` or a step number.
    Raises UsageError naming those there are.
    """
    # a superseded folder is no offer: it is there only while its successor is being put in place
    standing = {
        str(found.step): found.path for found in list_checkpoints(run) if not found.superseded
    }
    pointers = {
        name: path for name, path in (("best", run.best), ("last", run.last)) if path.exists()
    }
    # the pointers' words first: `best` and `last` are no numbers
    if step in pointers:
        return run.path / str(read_json(pointers[step])["path"])
    if step in standing:
        return standing[step]
    known = f"there are {', '.join([*pointers, *standing])}" if standing else "it has none yet"
    raise UsageError(f"run {run.id} has no checkpoint {step}: {known}")


def step_of(folder: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(folder.name.split("-")[1].split(".")[0])


def structure_of(run: RunDir) -> dict[str, Any] | None:
    """What the network of a run is made of, by its newest checkpoint that can be read; the same in
    all of them. None where none says so.
    """
    for found in reversed(list_checkpoints(run)):
        try:
            return structure_in(read_verified(found.path, (STRUCTURE_FILE,)), str(found.path))
        except IntegrityError:
            continue  # who goes on from it passes over it, and says so
    return None


def structure_in(files: Mapping[str, bytes], where: str) -> dict[str, Any] | None:
    """structure.json among the files of a checkpoint (see dgc.hub.recorded_networks); None where
    it has none (older ones). Raises IntegrityError.
    """
    text, where = files.get(STRUCTURE_FILE), f"{where}/{STRUCTURE_FILE}"
    if text is None:
        return None
    try:
        return checked_structure(orjson.loads(text), where)
    except ValueError as error:
        raise IntegrityError(f"{where}: is no structure of a network ({error})") from error


def checked_structure(found: Any, where: str) -> dict[str, Any]:
    """A structure that may come from a file of strangers. Raises IntegrityError."""
    # checked value by value: nothing of a stranger's JSON may be taken for what it should be
    builder = found.get("builder") if isinstance(found, dict) else None
    name, given = (
        (builder.get("name"), builder.get("arguments")) if isinstance(builder, dict) else (0, 0)
    )
    if not isinstance(name, str) or not isinstance(given, dict):
        raise IntegrityError(f"{where}: is no structure of a network: it names no builder")
    return dict(found)


# --- pointers and purging -------------------------------------------------------------------------


def point_to(pointer: Path, checkpoint: Checkpoint, **facts: Any) -> None:
    """Write last.json or best.json: where its checkpoint lies, relative to the run."""
    path = f"checkpoints/{checkpoint.path.name}"
    write_json(pointer, {"step": checkpoint.step, "path": path, **facts}, point=pointer.stem)


def repair_pointer(run: RunDir, pointer: Path, step: int | None, **facts: Any) -> None:
    """Before going on after a kill: let a pointer agree with the state that was loaded, whose
    writer may not have got so far as to move it. One whose checkpoint is gone (or `step` None) is
    removed.
    """
    standing = [checkpoint for checkpoint in list_checkpoints(run) if checkpoint.step == step]
    if standing:
        point_to(pointer, standing[-1], **facts)
    else:
        pointer.unlink(missing_ok=True)


def purge(run: RunDir, keep_last: int, keep_steps: Collection[int] = ()) -> list[int]:
    """Remove all but the newest `keep_last` and `keep_steps`;
    a half-removed one never bears a checkpoint's name.
    """
    standing = list_checkpoints(run)
    steps = {checkpoint.step for checkpoint in standing}
    # The best one is among `keep_steps`: best.json would else point to nothing.
    kept = set(sorted(steps)[-keep_last:]) | set(keep_steps)
    crash_point("purge.before")
    for checkpoint in standing:
        if checkpoint.step not in kept:
            _remove(checkpoint)
    crash_point("purge.after")
    return sorted(steps - kept)


def _remove(checkpoint: Checkpoint) -> None:
    # Renamed first: a kill in the middle of removing its files must not leave something that
    # bears the name of a checkpoint and is none.
    doomed = checkpoint.path.with_name(temporary_name("purged-" + checkpoint.path.name))
    remove_tree(doomed)
    os.rename(checkpoint.path, doomed)
    crash_point("purge.after-rename")
    remove_tree(doomed)


def set_aside_after(run: RunDir, step: int) -> list[str]:
    """Rename checkpoints later than `step` to `bad-*`:
    the run goes on from `step`, they were passed over.
    """
    moved = []
    for checkpoint in list_checkpoints(run):
        if checkpoint.step > step:
            target = checkpoint.path.with_name("bad-" + checkpoint.path.name)
            remove_tree(target)
            os.rename(checkpoint.path, target)
            moved.append(target.name)
    return moved
