"""Where fetched checkpoints lie, who may write there, and which digest of each is trusted. No
torch.

<cache>/checkpoints/NAME.tar              the released file, complete and checked; written by
                                          rename only
<cache>/checkpoints/.NAME.tar.HOST.part   a transfer that is under way or was cut, with .json
                                          beside it
<cache>/checkpoints/.NAME.tar.lock        held while somebody fetches it; .holder says who
<cache>/checkpoints/NAME.safetensors      what it was converted to, NAME.json beside it
<cache>/checkpoints.lock                  the digest of each at its first use, when and from where

No digest of a released checkpoint was ever published. So the first file that passes every other
check is trusted, its digest is pinned, and a later change is refused until it is pinned anew on
purpose. The old pins are kept as history.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dgc import settings
from dgc.errors import IntegrityError
from dgc.run.files import atomic_write

SCHEMA_VERSION = 1
Say = Callable[[str], None]


@dataclass(frozen=True)
class Cache:
    """Paths of one cache folder. Making one touches nothing."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        return cls(settings.cache_dir())

    @property
    def folder(self) -> Path:
        return self.root / "checkpoints"

    @property
    def pins(self) -> Path:
        return settings.checkpoints_lock() or self.root / "checkpoints.lock"

    def file(self, name: str) -> Path:
        return self.folder / name

    def part(self, name: str, host: str) -> Path:
        return self.folder / f".{name}.{host}.part"

    def lock(self, name: str) -> Path:
        return self.folder / f".{name}.lock"

    def converted(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


@contextlib.contextmanager
def hold(path: Path, say: Say) -> Iterator[None]:
    """Be the only one who writes what `path` guards; a second process waits, and says for whom.

    The operating system frees the lock when its holder dies. Raises OSError where the folder cannot
    be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(path), path.with_suffix(".holder")
    try:
        # without waiting at first: only who must wait is worth a line
        lock.acquire(timeout=0)
    except Timeout:
        say(
            f"waiting for {path.name.removeprefix('.').removesuffix('.lock')}:"
            f" {_holder_line(holder)}"
        )
        lock.acquire()
    try:
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%H:%M:%S"),
        }
        holder.write_text(json.dumps(facts), encoding="utf-8")
        yield
    finally:
        # before the lock: whoever comes next must not read of a holder that is gone
        holder.unlink(missing_ok=True)
        lock.release()


def _holder_line(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return f"held by PID {facts['pid']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError):
        return "held by another process"


# --- the digests that are trusted -----------------------------------------------------------------


@dataclass(frozen=True)
class Pin:
    """One trusted digest. `origin` is a URL or `import:PATH`;
    `confirmed_by` the hosts that gave the same bytes.
    """

    sha256: str
    size: int
    origin: str
    when: str
    confirmed_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.sha256} pinned {self.when} from {self.origin}"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class PinFile:
    """Reads and writes the lock file; a missing one holds no pins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str) -> Pin | None:
        entry = self._read().get(name)
        return self._pin(entry) if entry else None

    def set(self, name: str, pin: Pin) -> None:
        """Pin a digest; what was pinned before moves to `history`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # read, changed and written under one guard: two downloads may pin at the same time
        with FileLock(self.path.with_name(self.path.name + ".guard")):
            entries = self._read()
            old = entries.get(name)
            history = old.pop("history", []) if old else []
            # the history is of digests: the same one pinned
            # again (confirmed by another host) adds nothing
            if old and old["sha256"] != pin.sha256:
                history.append(old)
            entries[name] = {**asdict(pin), "history": history}
            content = {"schema_version": SCHEMA_VERSION, "checkpoints": entries}
            atomic_write(
                self.path,
                (json.dumps(content, indent=2, sort_keys=True) + "\n").encode(),
                point="pins",
            )

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self.path.read_bytes())
            if content["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {content['schema_version']}")
            entries = dict(content["checkpoints"])
            # every entry, not only the one that is asked for:
            # a damaged file must not be written back in part
            for entry in entries.values():
                self._pin(entry)
            return entries
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"{self.path}: the lock file of trusted digests cannot be read ({error!r}); restore"
                " it or remove it, which means to trust the next download anew"
            ) from error

    @staticmethod
    def _pin(entry: dict[str, Any]) -> Pin:
        return Pin(
            str(entry["sha256"]),
            int(entry["size"]),
            entry["origin"],
            entry["when"],
            tuple(entry["confirmed_by"]),
        )
