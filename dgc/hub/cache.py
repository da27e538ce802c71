"""Where fetched checkpoints lie, and who may write there. No torch.

<cache>/checkpoints/NAME.tar              the released file, complete and checked; written by rename only
<cache>/checkpoints/.NAME.tar.HOST.part   a transfer that is under way or was cut, with .json beside it
<cache>/checkpoints/.NAME.tar.lock        held while somebody fetches it; .holder says who
<cache>/checkpoints/NAME.safetensors      what it was converted to, NAME.json beside it
<cache>/checkpoints.lock                  digests, see lock.py
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dgc import settings

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
        holder.unlink(missing_ok=True)
        lock.release()


def _holder_line(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return f"held by PID {facts['pid']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError):
        return "held by another process"
