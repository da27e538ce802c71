"""Unpack a tar archive that nobody vouches for: nothing outside the folder, no links, no devices,
no bombs.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dgc.errors import IntegrityError, UnsafeFileError
from dgc.run.files import disk_error, sha256_of

MAX_ENTRIES = 1_000
MAX_BYTES = 1 << 30  # CIFAR unpacks to 0.2 GiB
_CHUNK = 1 << 20


def check_archive(path: Path, expected: str, size: int) -> None:
    """Raise IntegrityError with both digests and both sizes, where they differ."""
    got, got_size = sha256_of(path), path.stat().st_size
    if got == expected:
        return
    raise IntegrityError(
        f"{path}: sha256 mismatch: expected {expected} ({size:,} bytes), got {got} ({got_size:,}"
        " bytes): nothing was unpacked; remove the file and fetch it again"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack into `folder`, which must be new. On any error the folder is removed again.

    Raises UnsafeFileError (the member is named) before anything of that member is written,
    IntegrityError where the archive is damaged.
    """
    folder.mkdir(parents=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in _checked(tar, archive):
                _write(tar, member, folder)
    # whatever it was, a half-unpacked folder would be taken for the data by the next start
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise disk_error(error, folder, MAX_BYTES) from error
        if isinstance(error, tarfile.TarError | EOFError | zlib.error | lzma.LZMAError | OSError):
            raise IntegrityError(
                f"{archive}: damaged archive ({error}): remove it and fetch it again"
            ) from error
        raise


def _checked(tar: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    total = 0
    names: set[PurePosixPath] = set()
    for number, member in enumerate(tar):
        total += member.size
        path = PurePosixPath(member.name)
        # two members of one name: what was checked first could be written over by the second
        reason = _unsafe(member) or ("comes twice" if path in names else None)
        names.add(path)
        if reason:
            raise UnsafeFileError(
                f"{archive}: refused: member {member.name!r} {reason}; nothing was kept"
            )
        # asked before anything of the member is written: sizes
        # stand in the headers, so a bomb is told by its list
        if number >= MAX_ENTRIES:
            raise UnsafeFileError(
                f"{archive}: refused: more than {MAX_ENTRIES:,} members, from {member.name!r} on"
            )
        if total > MAX_BYTES:
            raise UnsafeFileError(
                f"{archive}: refused: unpacks to more than {MAX_BYTES:,} bytes, from member"
                f" {member.name!r} on"
            )
        yield member


def _unsafe(member: tarfile.TarInfo) -> str | None:
    path = PurePosixPath(member.name)
    # a backslash or a drive's colon is an absolute
    # name elsewhere, where the folder may be copied to
    if path.is_absolute() or "\\" in member.name or ":" in member.name:
        return "has an absolute name"
    if ".." in path.parts:
        return "leads outside the folder"
    if member.issym() or member.islnk():
        return f"is a link (to {member.linkname!r})"
    if member.issparse():
        return "is a sparse file"
    return None if member.isfile() or member.isdir() else "is neither a file nor a folder"


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    target = folder / member.name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    if source is not None:
        # x: a file that is there already is not ours to write through
        with source, target.open("xb") as stream:
            shutil.copyfileobj(source, stream, _CHUNK)
