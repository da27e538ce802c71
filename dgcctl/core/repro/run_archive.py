"""Taking runs out of the folder: an immutable copy with digests of every file, and removal of what
is not running.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from dgc.errors import IntegrityError, LockedError, UsageError
from dgc.run.checkpoint_store import list_checkpoints
from dgc.run.files import (
    file_digest,
    fsync_dir,
    make_shared_folder,
    read_bounded,
    read_json,
    remove_tree,
    temporary_name,
)
from dgc.run.paths import RunDir
from dgc.run.status import State, inferred_state, read_status
from dgcctl.core import settings

DIGESTS = "SHA256SUMS"
_LEFT_OUT = ("control/", "lock.json", ".lock.guard", ".tmp-")
_ARCHIVES = {".tar.gz": "w:gz", ".tgz": "w:gz", ".tar": "w:", ".zip": "zip"}
_OTHER_ARCHIVES = (".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar", ".lz4")


def export(run: RunDir, target: Path, *, checkpoints: str = "best") -> list[str]:
    """Copy a run to a new folder, or to a .zip, .tar or .tar.gz archive, with SHA256SUMS.
    Returns the files' names.

    `checkpoints`: `all`, `none`, or `best` (those that best.json and last.json point to). The copy
    appears whole or not at all, and is read-only. Raises UsageError where the target stands already
    or the run is running, and for an archive of another kind.
    """
    # a suffix of another packer would otherwise become a folder of that name
    if target.name.lower().endswith(_OTHER_ARCHIVES) and not target.name.lower().endswith(
        tuple(_ARCHIVES)
    ):
        raise UsageError(
            f"{target}: archives are written as {', '.join(_ARCHIVES)}; a name without those is a"
            " folder"
        )
    if target.exists():
        raise UsageError(f"{target}: stands already; an export is never changed: give another name")
    # asked before anything is copied: files of a running run change under the copy
    if inferred_state(read_status(run)) is State.RUNNING:
        raise UsageError(
            f"{run.id}: is running; export it when it is done, or stop it: `dgcctl runs stop"
            f" {settings.run_argument(run.path)}`"
        )
    names = list(exported_files(run, checkpoints))
    temporary = target.with_name(temporary_name(target.name))
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = next(
        (mode for suffix, mode in _ARCHIVES.items() if target.name.lower().endswith(suffix)), None
    )
    try:
        _archive(run, names, temporary, mode) if mode else _folder(run, names, temporary)
    # also Ctrl-C: an export is there whole or not at all
    except BaseException:
        remove_tree(temporary)
        raise
    os.rename(temporary, target)
    fsync_dir(target.parent)
    return names


def exported_files(run: RunDir, checkpoints: str = "best") -> Iterator[str]:
    """Names of the files that belong to a run's record, sorted."""
    kept = _kept_checkpoints(run, checkpoints)
    for path in sorted(run.path.rglob("*")):
        name = path.relative_to(run.path).as_posix()
        # the lock and half-written files are of the machine, not of the run
        if not path.is_file() or any(
            name.startswith(left) or f"/{left}" in name for left in _LEFT_OUT
        ):
            continue
        if name.startswith("checkpoints/") and name.split("/")[1] not in kept:
            continue
        yield name


def _kept_checkpoints(run: RunDir, wanted: str) -> set[str]:
    standing = {checkpoint.path.name for checkpoint in list_checkpoints(run)}
    if wanted in ("all", "none"):
        return standing if wanted == "all" else set()
    if wanted != "best":
        raise UsageError(f"--checkpoints {wanted}: should be best, all or none")
    pointers = [read_json(pointer) for pointer in (run.best, run.last) if pointer.is_file()]
    return standing & {Path(str(pointer["path"])).name for pointer in pointers}


def _sums(run: RunDir, names: list[str]) -> bytes:
    return "".join(f"{file_digest(run.file(name))}  {name}\n" for name in names).encode(
        # names of any bytes: sha256sum writes them as they are
        errors="surrogateescape"
    )


def _folder(run: RunDir, names: list[str], temporary: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    for name in names:
        copy = temporary / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.file(name), copy)
        copy.chmod(0o444)
    sums = temporary / DIGESTS
    sums.write_bytes(_sums(run, names))
    sums.chmod(0o444)


def _archive(run: RunDir, names: list[str], temporary: Path, mode: str) -> None:
    if mode == "zip":
        _zip(run, names, temporary)
        return
    with tarfile.open(temporary, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            # recursive=False: files alone, so that a link to a folder brings nothing in
            archive.add(run.file(name), f"{run.id}/{name}", recursive=False)
        sums = _sums(run, names)
        entry = tarfile.TarInfo(f"{run.id}/{DIGESTS}")
        entry.size = len(sums)
        archive.addfile(entry, io.BytesIO(sums))


def _zip(run: RunDir, names: list[str], temporary: Path) -> None:
    # strict_timestamps: a file from before 1980 must not make a zip impossible
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for name in names:
            archive.write(run.file(name), f"{run.id}/{name}")
        archive.writestr(f"{run.id}/{DIGESTS}", _sums(run, names))


def check_export(folder: Path) -> list[str]:
    """Names of exported files that are absent or changed ([]
    where all are as they were). Raises IntegrityError.
    """
    try:
        lines = (
            read_bounded(folder / DIGESTS).decode("utf-8", errors="surrogateescape").splitlines()
        )
    except FileNotFoundError:
        raise IntegrityError(f"{folder}: no export of a run ({DIGESTS} is expected)") from None
    # two blanks, as sha256sum has it: `sha256sum -c` checks an export without us
    pairs = [line.split("  ", 1) for line in lines]
    return [name for digest, name in pairs if file_digest(folder / name) != digest]


TRASH = ".trash"  # beside the runs; no run's name begins with a point


def remove(run: RunDir) -> None:
    """Delete a run for good. Raises LockedError where it is running, here or elsewhere."""
    _refuse_running(run)
    doomed = run.path.with_name(f".{temporary_name('removed-' + run.id).lstrip('.')}")
    os.rename(run.path, doomed)  # a half-removed run never bears a run's name
    shutil.rmtree(doomed)


def throw_away(run: RunDir) -> RunDir:
    """Move a run into the trash beside it. Raises LockedError where it is running."""
    _refuse_running(run)
    trash = run.path.parent / TRASH
    make_shared_folder(trash)
    return _moved(run, trash)


def bring_back(run: RunDir) -> RunDir:
    """Move a run out of the trash. Raises UsageError where another one bears its name."""
    return _moved(run, run.path.parent.parent)


def _moved(run: RunDir, folder: Path) -> RunDir:
    target = folder / run.id
    # never into its place: two runs of one name are two runs
    if target.exists():
        raise UsageError(f"{target} is there already: move one of the two away")
    os.rename(run.path, target)
    return RunDir(target)


def _refuse_running(run: RunDir) -> None:
    try:
        status = read_status(run)
    # a record that cannot be read is no sign of life
    except (FileNotFoundError, IntegrityError):
        return
    if inferred_state(status) is State.RUNNING:
        raise LockedError(
            f"{run.id}: is running (process {status.pid} on {status.host}): stop it with `dgcctl"
            f" runs stop {settings.run_argument(run.path)}`"
        )
