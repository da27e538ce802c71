"""Durable files: everything others read is written to a temporary name, fsynced, renamed. No torch.

Each step of a commit passes a named crash point, so that the tests can kill the writer exactly
there: `DGCCTL_CRASH_AT=name:n` ends the process with SIGKILL at the n-th passage of `name` (counted
from 1).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import signal
import stat
from collections import Counter
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import orjson

from dgc import settings
from dgc.errors import IntegrityError, ResourceError, UsageError, system_error

RECORD_BYTES = 64 << 20  # more than any record of a run ever holds
_FIRST_PIECE = 1 << 15  # most records have no more
_PIECE = 1 << 20
DISK_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO))
_DISK_ERRNOS = DISK_FULL | {errno.EROFS, errno.ESTALE}
_LEFTOVER = re.compile(r"\.tmp-(\d+)-")


class CrashPoints:
    """Counts passages of named points
    and kills the process at the one that the environment names.
    """

    def __init__(self, spec: str = "") -> None:
        try:
            self._name, self._count = settings.parse_crash_at(spec)
        # said by whoever reads the settings; a module that is imported can only raise a traceback
        except UsageError:
            self._name, self._count = "", 0
        self._seen: Counter[str] = Counter()

    def __call__(self, name: str) -> None:
        # the usual case first: each commit passes a dozen of these
        if not self._name or name != self._name:
            return
        self._seen[name] += 1
        if self._seen[name] == self._count:
            # Not an exception: a crash runs no `finally`, and that is what is to be tried.
            os.kill(os.getpid(), signal.SIGKILL)


crash_point = CrashPoints(settings.crash_at_text())


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    # A rename is durable only when the folder that holds the name is.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: Path) -> BufferedReader:
    """Open for reading what anybody may have put there. Raises IntegrityError where it is no file.

    A pipe would be waited for without end, and a device read without end.
    """
    return os.fdopen(_descriptor(path), "rb")


def _descriptor(path: Path) -> int:
    """As `open_regular`, but bare: a listing of thousands of runs opens five files of each."""
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait. It changes nothing for
        # files.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket; a device that is not there
            raise _no_file(path) from error
        raise
    # Asked of the open descriptor and not of the name, which may be another file by now.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return descriptor


def _no_file(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path}: unreadable: a folder, pipe, socket or device stands where a file is expected"
    )


def is_file(path: Path) -> bool:
    """Whether a file stands there. Raises ResourceError where nobody may look: a folder above it is
    closed. (Path.is_file raises a bare OSError for that, or, from Python 3.14 on, says no.)
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise system_error(error) from error


def read_bounded(path: Path, limit: int = RECORD_BYTES) -> bytes:
    """The bytes of such a file.
    Raises IntegrityError where there are more than `limit`, before they are read.
    """
    descriptor = _descriptor(path)
    pieces: list[bytes] = []
    size, most = 0, _FIRST_PIECE
    try:
        # Piece by piece: one read of `limit` bytes would ask for all that memory, for a file of a
        # hundred bytes too.
        while size <= limit and (piece := os.read(descriptor, min(most, limit + 1 - size))):
            pieces.append(piece)
            size, most = size + len(piece), _PIECE
    finally:
        os.close(descriptor)
    if size > limit:
        raise IntegrityError(f"{path}: unreadable: larger than {limit:,} bytes")
    return b"".join(pieces)


def sha256_of(path: Path) -> str:
    """Digest of a file's bytes, in hexadecimal.
    Raises IntegrityError for a pipe, a device, a folder.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """`sha256_of` a file that may be gone: `absent` where there is none."""
    try:
        return sha256_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return "absent"


def write_all(descriptor: int, data: bytes) -> None:
    """os.write until everything is out (a regular file may take less than was asked)."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_durably(path: Path, data: bytes, *, point: str = "file") -> None:
    """Write a new file and fsync it. Not atomic by itself:
    for a temporary name, or inside a temporary folder.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        crash_point(f"{point}.before-write")
        write_all(descriptor, data)
        crash_point(f"{point}.before-fsync")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, data: bytes, *, point: str = "file") -> None:
    """Replace `path` by `data`:
    after a crash at any moment it holds the old bytes or the new ones, whole.

    Raises ResourceError (path and free bytes named) where the disk refuses; the old file stays.
    """
    # Beside the target: a rename is atomic only within one file system.
    temporary = path.with_name(temporary_name(path.name))
    try:
        # the name that readers know is there only when all of its bytes are on the disk
        write_durably(temporary, data, point=point)
        crash_point(f"{point}.before-rename")
        os.replace(temporary, path)
        crash_point(f"{point}.after-rename")
        fsync_dir(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise disk_error(error, path, len(data)) from error


def make_shared_folder(path: Path) -> None:
    """Make a folder that all users of its parent need. Where others may write into the parent they
    may here too, whatever the mask of whoever comes first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        return
    # by the parent's rights, and not by the mask: what a team shares stays shared
    mode = stat.S_IMODE(path.parent.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        with contextlib.suppress(OSError):  # a disk without such rights
            path.chmod(mode)


def temporary_name(name: str) -> str:
    """A name that `clear_leftovers` knows as this process's unfinished work."""
    return f".tmp-{os.getpid()}-{name}"


def clear_leftovers(folder: Path) -> list[str]:
    """Remove the unfinished work of dead processes
    in `folder` (files and folders) and return its names.

    What a living process is writing stays, except under our own pid: then it was left by a namesake
    that is gone.
    """
    cleared = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _LEFTOVER.match(entry.name)
        # Pids are given again: whoever had ours before is gone, or we would not have it.
        if match and (int(match[1]) == os.getpid() or not _exists(int(match[1]))):
            remove_tree(entry)
            cleared.append(entry.name)
    return cleared


def remove_tree(path: Path) -> None:
    """Remove a file or a folder; one that is already gone is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exists(pid: int) -> bool:
    try:
        # signal 0 asks whether it could be sent
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # somebody else's process, and so a living one
        return True
    return True


def disk_error(error: OSError, path: Path, needed: int) -> Exception:
    """The one-line ResourceError for a disk that refuses; any other OSError comes back as it is."""
    # a fault of ours (a wrong path, a missing folder) must not be called a full disk
    if error.errno not in _DISK_ERRNOS:
        return error
    return ResourceError(
        f"{path}: cannot write {needed:,} bytes ({os.strerror(error.errno or 0)};"
        f" {free_bytes(path):,} bytes free): free some space or choose another folder with"
        " DGCCTL_RUNS_DIR, then `dgcctl resume`"
    )


def free_bytes(path: Path) -> int:
    """Bytes an ordinary user may still write on the file system
    of `path` (0 where it cannot be asked).
    """
    for folder in (path, *path.parents):
        # the path may not exist yet: the next folder above it that does
        with contextlib.suppress(OSError):
            facts = os.statvfs(folder)
            return facts.f_bavail * facts.f_frsize
    return 0


SCHEMA_VERSION = 1


def write_json(path: Path, value: Mapping[str, Any], *, point: str = "json") -> None:
    """Write a JSON object atomically, with this format's schema version."""
    document = {"schema_version": SCHEMA_VERSION, **value}
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    try:
        data = orjson.dumps(document, option=options)
    except TypeError:
        # A name that is not UTF-8 (rare, but any bytes may name a file) is a second try, so that
        # the usual document is not walked through for it.
        data = orjson.dumps(as_utf8(document), option=options)
    atomic_write(path, data, point=point)


def as_utf8(value: Any) -> Any:
    """The value with each byte of a name that
    is not UTF-8 spelt out (`\\xff`): JSON holds only text.
    """
    if isinstance(value, str):
        # two kinds of what is no UTF-8: bytes of a name as
        # Python keeps them, and halves of surrogate pairs
        escaped = all(
            "\udc80" <= letter <= "\udcff" or not "\ud800" <= letter <= "\udfff" for letter in value
        )
        return value.encode("utf-8", "surrogateescape" if escaped else "backslashreplace").decode(
            "utf-8", "backslashreplace"
        )
    if isinstance(value, Mapping):
        return {as_utf8(key): as_utf8(item) for key, item in value.items()}
    return [as_utf8(item) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises IntegrityError where it is no file,
    no object or from a newer schema.
    """
    try:
        value = orjson.loads(read_bounded(path))
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{path}: holds a {type(value).__name__} where an object is expected")
    version = value.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise IntegrityError(
            f"{path}: schema version {version} is newer than {SCHEMA_VERSION}, the newest this"
            " release reads: upgrade"
        )
    return value
