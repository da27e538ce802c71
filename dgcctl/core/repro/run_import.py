"""Taking runs in: from an exported folder or archive, or from another runs folder. What is there
already is not taken twice, under whatever name it comes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dgc.errors import IntegrityError, ResourceError, UsageError
from dgc.run.files import file_digest, free_bytes, fsync_dir, remove_tree, temporary_name
from dgc.run.names import is_one_component
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgcctl.core.repro.run_archive import DIGESTS, check_export, exported_files
from dgcctl.core.runs import listing, run_ids

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class ImportedRun:
    """One run of a source: where it is now, and `imported` or `already here`."""

    run: RunDir
    outcome: str


def import_runs(source: Path, runs: Path) -> Iterator[ImportedRun]:
    """Copy the runs of a source into a folder of runs,
    one after the other, each whole or not at all.

    Raises UsageError for what holds no run, and where another run has the name; IntegrityError
    where an exported file was changed, or an archive would write elsewhere.
    """
    if not source.exists():
        raise UsageError(f"{source}: there is no such file or folder")
    runs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if source.is_file():
            folder = runs / temporary_name("import")
            # unpacked inside the runs folder: the rename at the end is then within one file system
            stack.callback(remove_tree, folder)
            _unpack(source, folder)
        else:
            folder = source
        found = list(_runs_in(folder)) or list(_runs_in(folder / "runs"))
        if not found:
            raise UsageError(
                f"{source}: no run is in it, nor in its folder `runs`: give an exported run,"
                " its archive, or a folder of runs"
            )
        for run in found:
            yield _take(run, runs)


def _runs_in(folder: Path) -> Iterator[RunDir]:
    one = RunDir(folder.resolve())
    # one run, or a folder of them: told by what lies right in it
    if one.status.is_file() or one.recipe.is_file():
        yield one
        return
    # oldest first, so that what is listed by age here comes in that order too
    yield from reversed(list(listing.iterate(folder)))


def _take(run: RunDir, runs: Path) -> ImportedRun:
    seen = listing.read_run(run)
    if seen.state == listing.UNREADABLE:
        raise IntegrityError(f"{seen.problem}: cannot be imported")
    if seen.state in (State.RUNNING, State.QUEUED):
        raise UsageError(f"{run.path}: is {seen.state}: import it when it is done")
    # an export vouches for each of its files; a folder that was copied by hand does not
    if (run.path / DIGESTS).is_file() and (changed := check_export(run.path)):
        raise IntegrityError(
            f"{run.path}: changed since it was exported: {', '.join(changed[:3])}"
            + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        )
    # before a name is chosen: the same run under another name is no second run
    if there := _same_run(run, runs):
        return ImportedRun(there, "already here")
    target = RunDir(runs / _name(seen))
    if target.path.exists():
        raise UsageError(
            f"{target.path}: another run has that name: rename one of the two folders first"
        )
    _copy(run, target)
    return ImportedRun(target, "imported")


def _name(run: listing.Run) -> str:
    """Its own id, or, where an export was given another name,
    one made of when it began, its recipe, and its log.
    """
    if run_ids.is_stamped(run.id):
        return run.id
    began = run_ids.stamp_of(run.status.started)
    recipe = str(run.recipe.get("name") or run.id)
    recipe = recipe if is_one_component(recipe) else "run"
    # of its own log: two imports of one export get one name
    return f"{began}-{recipe}-{'-'.join(_identity(run.dir))[:6]}"


def _identity(run: RunDir) -> list[str]:
    """What two copies of a run have in common and no two runs: the log holds each moment."""
    # the recipe too: runs that were broken off before they logged have equal logs
    return [file_digest(path) for path in (run.events, run.recipe) if path.is_file()]


def _same_run(run: RunDir, runs: Path) -> RunDir | None:
    size = _size(run.events)
    # thousands of logs are not read for one import: only those that are as long
    likely = [one for one in listing.iterate(runs) if size > 0 and _size(one.events) == size]
    wanted = _identity(run) if likely else []
    return next((one for one in likely if _identity(one) == wanted), None)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _copy(run: RunDir, target: RunDir) -> None:
    names = list(exported_files(run, "all"))
    for name in names:
        # lstat: a link could bring in a file from anywhere
        if not stat.S_ISREG(run.file(name).lstat().st_mode):
            raise IntegrityError(f"{run.file(name)}: is a link: a run is made of files alone")
    _require_room(sum(run.file(name).stat().st_size for name in names), target.path.parent)
    temporary = target.path.with_name(temporary_name(target.id))
    try:
        for name in names:
            # what can be tagged and resumed afterwards is no export any more
            if name == DIGESTS:
                continue
            copy = temporary / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.file(name), copy)
            # the dates are part of what a person knows a run by
            shutil.copystat(run.file(name), copy)
            copy.chmod(0o644)
        os.rename(temporary, target.path)
    except BaseException:
        remove_tree(temporary)
        raise
    fsync_dir(target.path.parent)


def _require_room(needed: int, folder: Path) -> None:
    if needed > (free := free_bytes(folder)):
        raise ResourceError(f"{folder}: {needed:,} bytes are needed, {free:,} are free")


def _unpack(source: Path, folder: Path) -> None:
    """An archive's files into a new folder.
    No name in it leads out of there, and no link is made.
    """
    if not source.name.lower().endswith(_ARCHIVES):
        raise UsageError(f"{source}: no archive of a run ({', '.join(_ARCHIVES)} are read)")
    folder.mkdir()
    try:
        if source.name.lower().endswith(".zip"):
            _unzip(source, folder)
        else:
            _untar(source, folder)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        # an error of the disk is told as such by who called
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise IntegrityError(f"{source}: cannot be unpacked ({error})") from error


def _unzip(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        entries = archive.infolist()
        # before anything is written: the list says how large it will be
        _require_room(sum(entry.file_size for entry in entries), folder)
        for entry in entries:
            # the upper half: a Unix mode, where the archive was made on one
            kind = entry.external_attr >> 16
            _require_file(source, entry.filename, link=bool(kind) and stat.S_ISLNK(kind))
            if not entry.is_dir():
                archive.extract(entry, folder)


def _untar(source: Path, folder: Path) -> None:
    with tarfile.open(source) as archive:
        entries = archive.getmembers()
        _require_room(sum(entry.size for entry in entries), folder)
        for entry in entries:
            _require_file(source, entry.name, link=not (entry.isreg() or entry.isdir()))
            # filter="data" as a second wall: links, devices, absolute names
            archive.extract(entry, folder, filter="data")


def _require_file(source: Path, name: str, *, link: bool) -> None:
    path = PurePosixPath(name)
    if link or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise IntegrityError(f"{source}: {name!r} is no file of a run: nothing was imported")
