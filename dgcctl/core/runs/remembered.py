"""What a listing remembers of runs that have ended, so that thousands of them are not read again.

One file a folder of runs, in the user's own cache: no lock, nothing in the folder itself, nothing
that another user's rights can break, and it may be removed at any time. A run is remembered with
the inode and the change time (ctime) of its folder and of each of its files that a listing reads;
it is read again as soon as one of them differs. The change time is the system's own: it moves with
every write, rename, copy and change of rights, and no program can set it back. (A disk of the
network may show it as late as its client looks again.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from dgc import settings
from dgc.errors import DgcError
from dgc.run.files import atomic_write, read_bounded
from dgc.run.status import State, Status

FEWEST = 200  # runs of a folder; fewer are read in no time
_FILES = (
    "status.json", "metrics.json", "recipe.yaml", "recipe.json", "config.json", "labels.json",
    "sweep.json", "rerun.json",
)  # fmt: skip
_ENDED = (State.DONE, State.STOPPED, State.FAILED)
_FORMAT = 1
_STATUS = list(Status.__dataclass_fields__)
_MOST = 256 << 20  # bytes of such a file
_NEW = 2.0  # seconds: a file that changed just now may change again within one tick of its clock
_KEPT_DAYS = 30
Signature = list[int]


@dataclass
class Memory:
    """The remembered runs of one folder. `seen`: the signature of each run and the files that it is
    of, taken before the run is read.
    """

    folder: Path
    file: Path
    known: dict[str, Any] = field(default_factory=dict)
    loaded: int = 0  # entries in the file
    seen: dict[str, tuple[Signature, list[str]]] = field(default_factory=dict)

    def recall(self, name: str) -> dict[str, Any] | None:
        """The entry of a run that is as it was; None where it must be read."""
        entry: dict[str, Any] | None = self.known.get(name)
        path = f"{self.folder}/{name}"
        try:
            if entry is not None and _signature(path, entry["files"]) == entry["signature"]:
                self.seen[name] = entry["signature"], entry["files"]
                return entry
            files = _present(path)
            self.seen[name] = _signature(path, files), files
        except OSError:
            self.seen.pop(name, None)
        self.known.pop(name, None)
        return None

    def entry(self, name: str, status: Status, **read: Any) -> dict[str, Any] | None:
        """What is to be known of a run that was read;
        None where it has not ended or changed just now.
        """
        signature, files = self.seen.get(name, ([], []))
        if not signature or status.state not in _ENDED:
            return None
        if max(signature[::2]) > (time.time() - _NEW) * 1e9:
            return None
        try:
            # taken before it was read, and the same now: so it was read as it is
            if _signature(f"{self.folder}/{name}", files) != signature:
                return None
        except OSError:
            return None
        return {"signature": signature, "files": files, "status": dict(vars(status)), **read}

    def keep(self, names: Iterable[str], fresh: Mapping[str, Any]) -> None:
        """Write what is known of these runs, where anything is new or gone. A cache that cannot be
        written is none, without a word.
        """
        entries = {name: self.known[name] for name in names if name in self.known}
        if not fresh and len(entries) == self.loaded:
            return
        kept = {name: entry for name, entry in fresh.items() if _is_exact([name, entry])}
        document = orjson.dumps(_packed({**entries, **kept}))
        with contextlib.suppress(OSError, DgcError):
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            atomic_write(self.file, _sealed(document))
            os.chmod(self.file, 0o600)  # it holds what the recipes say
            _forget_old(self.file.parent)


def of(folder: Path, names: Sequence[str]) -> Memory | None:
    """The memory of a folder of runs; None of a small one, and where no cache can be kept."""
    if len(names) < FEWEST:
        return None
    try:
        memory = Memory(folder, _place(folder))
        document = read_bounded(memory.file, _MOST)
    except FileNotFoundError:
        return memory
    except (OSError, DgcError, RuntimeError):  # RuntimeError: no home
        return None
    memory.known = _unpacked(document)
    memory.loaded = len(memory.known)
    return memory


# --- the file -------------------------------------------------------------------------------------
# Lists and not mappings, and each set of names once: that is half of the bytes, and read in half
# of the time.


def _packed(runs: Mapping[str, Any]) -> dict[str, Any]:
    """{"format", "sets": [names, ...], "runs": {id: [files, signature, status, metrics, read,
    recipe]}}: files and the first of a recipe are places in `sets`.
    """
    sets: dict[tuple[str, ...], int] = {}

    def place(names: Iterable[str]) -> int:
        return sets.setdefault(tuple(names), len(sets))

    packed: dict[str, Any] = {}
    for name, entry in runs.items():
        read = dict(entry["read"])
        recipe = read.pop("recipe", None)
        packed[name] = [
            place(entry["files"]), entry["signature"], list(entry["status"].values()),
            entry["metrics"], read,
            None if recipe is None else [place(recipe), *recipe.values()],
        ]  # fmt: skip
    return {"format": _FORMAT, "status": _STATUS, "sets": list(map(list, sets)), "runs": packed}


def _sealed(document: bytes) -> bytes:
    return f"{zlib.crc32(document):08x}\n".encode() + document


def _unpacked(sealed: bytes) -> dict[str, Any]:
    """The entries; none of a file of another release, or one that was damaged."""
    document = sealed.partition(b"\n")[2]
    if sealed != _sealed(document):
        return {}
    found = orjson.loads(document)
    if found["format"] != _FORMAT or found["status"] != _STATUS:
        return {}
    sets, known = found["sets"], {}
    for name, (files, signature, status, metrics, read, recipe) in found["runs"].items():
        if recipe is not None:
            read["recipe"] = dict(zip(sets[recipe[0]], recipe[1:], strict=True))
        known[name] = {
            "files": sets[files], "signature": signature, "metrics": metrics, "read": read,
            "status": dict(zip(_STATUS, status, strict=True)),
        }  # fmt: skip
    return known


def _is_exact(entry: Any) -> bool:
    """Whether JSON gives it back as it was: it knows no NaN, no number above 64 bits, no name that
    is not UTF-8. Such a run is read each time.
    """
    try:
        return bool(orjson.loads(orjson.dumps(entry)) == entry)
    except TypeError:
        return False


def _present(path: str) -> list[str]:
    there = set(os.listdir(path))  # asked once, and not for each name
    return [name for name in _FILES if name in there]


def _signature(path: str, files: Iterable[str]) -> Signature:
    """Change time and inode of the folder and of those files. Raises OSError where one is gone."""
    found = os.stat(path)
    signature = [found.st_ctime_ns, found.st_ino]
    for name in files:
        found = os.stat(f"{path}/{name}")
        signature += (found.st_ctime_ns, found.st_ino)
    return signature


def _place(folder: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    return settings.cache_dir() / "listings" / f"{digest}.json"


def _forget_old(folder: Path) -> None:
    """Remove what no listing has written for a month: its folder of runs may be gone."""
    oldest = time.time() - _KEPT_DAYS * 86400
    for file in folder.glob("*.json"):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()
