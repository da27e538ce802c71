"""CIFAR-10 and CIFAR-100: fetched by torchvision, verified, unpacked beside and moved into place;
then read strictly.

The files hold pickles. They are read only when their digest is the published one, and then by an
unpickler that knows nothing but arrays. A folder that torchvision itself made
(`cifar-10-batches-py`) is used as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from dgc import settings
from dgc.data.archive import check_archive, unpack
from dgc.data.image_sets import Labels
from dgc.data.transforms import Pixels
from dgc.errors import DataError, IntegrityError, UnsafeFileError
from dgc.run.files import clear_leftovers, temporary_name

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Source:
    """Where a CIFAR comes from and how it is known again.
    md5 of the files: as published and used by torchvision.
    """

    name: str
    url: str
    archive: str
    sha256: str
    size: int
    folder: str
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    labels: str


def source(name: str) -> Source:
    """The facts about "cifar10" or "cifar100";
    torchvision holds the addresses and the files' md5.
    """
    from torchvision.datasets import CIFAR10, CIFAR100  # slow to import

    kind, sha256, size, labels = {
        "cifar10": (
            CIFAR10,
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            170_498_071,
            "labels",
        ),
        "cifar100": (
            CIFAR100,
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            169_001_437,
            "fine_labels",
        ),
    }[name]
    train, test = (
        tuple((file, md5) for file, md5 in files) for files in (kind.train_list, kind.test_list)
    )
    return Source(
        name, kind.url, kind.filename, sha256, size, kind.base_folder, train, test, labels
    )


def ensure(source: Source, root: Path, *, download: bool, repair: bool = False) -> None:
    """Make root/<folder> be there: from the archive in `root`,
    or from the network where `download` allows it.

    `repair`: a folder with damaged files is fetched again (else only its absence counts; reading
    names the damage).

    Raises DataError (absent, not to be fetched; nothing is created), IntegrityError,
    UnsafeFileError (the archive). What was unpacked before stays until the new files are complete.
    """
    if _is_there(source, root, repair):
        return
    # what a killed download left; a living one of another process stays
    clear_leftovers(root)
    # an archive that the user put there needs no network, so it is asked for first
    if (root / source.archive).is_file():
        _install(source, root, root / source.archive)
        return
    if settings.offline():
        raise absent(source, root, "DGCCTL_OFFLINE forbids the network")
    if not download:
        raise absent(source, root, "data.download is false")
    with _made(root), FileLock(root / ".download.lock"):
        # again under the lock: another process may have fetched it while we waited
        if not _is_there(source, root, repair):
            _download(source, root)


def _is_there(source: Source, root: Path, repair: bool) -> bool:
    return (root / source.folder).is_dir() and not (repair and any(damaged(source, root)))


def damaged(source: Source, root: Path) -> Iterator[tuple[str, str]]:
    """(file, what is wrong) of the unpacked files."""
    for name, md5 in (*source.train, *source.test):
        try:
            verified(root / source.folder / name, md5)
        except (DataError, IntegrityError) as error:
            yield name, str(error)


def absent(source: Source, root: Path, reason: str) -> DataError:
    """The line for data that is not there: folder, flag and command."""
    return DataError(
        f"{root}: {source.name} is not there and cannot be fetched: {reason}; put {source.archive}"
        " into that folder, name another with --data-dir FOLDER (or data.dir=FOLDER), or run"
        f" `dgcctl data download {source.name}` where there is a network"
    )


@contextlib.contextmanager
def _made(root: Path) -> Iterator[None]:
    """Make a folder, and remove what was made of it where the body fails."""
    # noted before it is made: only what was not there before is removed again
    made = [path for path in (root, *root.parents) if not path.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{root}: cannot make the data folder ({error.strerror}): name another with data.dir"
        ) from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            (root / ".download.lock").unlink()
        with contextlib.suppress(OSError):
            # from the inside out; a folder that is not empty stays, and so do those around it
            for path in made:
                path.rmdir()
        raise


def _download(source: Source, root: Path) -> None:
    from torchvision.datasets.utils import download_url

    temporary = root / temporary_name("download")
    before = socket.getdefaulttimeout()
    # torchvision sets none: a silent server would hold us forever
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        download_url(source.url, temporary, source.archive)
        # verified before it is unpacked, and in a folder of its own: `root` sees whole files only
        _install(source, root, temporary / source.archive)
    except (OSError, RuntimeError, ValueError) as error:
        raise absent(source, root, f"{source.url}: {' '.join(str(error).split())}") from error
    finally:
        socket.setdefaulttimeout(before)
        shutil.rmtree(temporary, ignore_errors=True)


def _install(source: Source, root: Path, archive: Path) -> None:
    """Verify, unpack beside, check the files, move into place."""
    check_archive(archive, source.sha256, source.size)
    temporary, old = (root / temporary_name(name) for name in ("unpacked", "old"))
    try:
        unpack(archive, temporary)
        for name, md5 in (*source.train, *source.test):
            verified(temporary / source.folder / name, md5)
        _swap(temporary / source.folder, root / source.folder, old)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, target: Path, old: Path) -> None:
    """Put `new` in the place of `target`, which comes back where that fails."""
    if target.exists():
        # a rename over a folder that is not empty is refused, so the old one steps aside
        os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def load(source: Source, root: Path, *, train: bool) -> tuple[Pixels, Labels]:
    """(images (N, 32, 32, 3) uint8, labels (N,)) of a split, in the published order."""
    parts = [
        _batch(root / source.folder / name, md5, source.labels)
        for name, md5 in getattr(source, _split(train))
    ]
    return np.concatenate([images for images, _ in parts]), np.concatenate(
        [labels for _, labels in parts]
    )


def _split(train: bool) -> str:
    return "train" if train else "test"


def _batch(file: Path, md5: str, key: str) -> tuple[Pixels, Labels]:
    try:
        # the digest was checked just now, on these very
        # bytes; the unpickler below is the second wall
        batch = _Arrays(io.BytesIO(verified(file, md5)), encoding="latin1").load()
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{file}: refused: it needs {error}, which no array needs: remove {file.parent}"
        ) from error
    # CIFAR's files have channels in front, one image a row
    images = np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.asarray(batch[key], np.int64)


def verified(file: Path, md5: str) -> bytes:
    """The bytes of a file. Raises DataError (not readable) or IntegrityError (another md5)."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}): remove {file.parent} to fetch it again"
        ) from error
    got = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if got != md5:
        raise IntegrityError(
            f"{file}: md5 mismatch: expected {md5}, got {got} ({len(data):,} bytes): remove"
            f" {file.parent}"
        )
    return data


class _Arrays(pickle.Unpickler):
    """Knows what an array is made of, and refuses everything else."""

    _KNOWN = frozenset({"_reconstruct", "ndarray", "dtype"})

    def find_class(self, module: str, name: str) -> Any:
        # by name, and only of numpy: arrays are rebuilt by this function and nothing else
        if module.split(".")[0] == "numpy" and name in self._KNOWN:
            return getattr(np, name) if hasattr(np, name) else _reconstruct
        raise UnsafeFileError(f"{module}.{name}")


def _reconstruct(kind: type, shape: tuple[int, ...], dtype: Any) -> Any:
    return np.ndarray.__new__(np.ndarray, shape, dtype)
