"""Which files that git does not track go into the record of a run, and why others do not. No torch.

Copied is what can be code or a recipe, by its name: a training beside three thousand images must
start at once. What looks like a secret is never copied unasked, whether git tracks it or not.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dgc.run.file_kinds import is_code, is_secret
from dgc.run.git import readable
from dgc.run.leaving_out import REPOSITORY, grouped
from dgc.run.needed import Needed

FILE_LIMIT = 1 << 20
TOTAL_LIMIT = 16 << 20
COUNT_LIMIT = 1000
SECONDS_LIMIT = 20.0
LISTED_LIMIT = 100
_NOWHERE = "a symbolic link that leads nowhere"
_MARKS = ("recipe.yaml", "status.json", "argv.json", "control", "plan.json", "base.yaml")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY")


@dataclass
class Copied:
    """File -> SHA-256 of what was copied, file -> why of what was not,
    and a count of what is neither code nor recipe.

    Named in `left_out` are all files that the running code needs (`lacking`) and at most
    LISTED_LIMIT others; `left_out_count` and `left_out_reasons` count all of them.
    """

    files: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    left_out_count: int = 0
    left_out_reasons: Counter[str] = field(default_factory=Counter)
    lacking: dict[str, str] = field(default_factory=dict)
    other_kinds: Counter[str] = field(default_factory=Counter)
    other_bytes: int = 0

    def leave_out(self, name: str, why: str, *, needed: bool) -> None:
        self.left_out_count += 1
        self.left_out_reasons[why] += 1
        if needed:
            self.lacking[readable(name)] = why
        # all that the code needs is named, however many; of the rest as many as a person reads
        if needed or len(self.left_out) < LISTED_LIMIT:
            self.left_out[readable(name)] = why

    def problem(self) -> str:
        """Why the code cannot be restored from what was copied;
        "" where nothing that it needs is lacking.
        """
        return (
            f"sources of the package were left out: {grouped(self.lacking, {})}"
            if self.lacking
            else ""
        )


@dataclass
class Collector:
    """Copies files of `root` below `target` (None: only their digests), within the limits."""

    root: Path
    target: Path | None
    secrets: bool = False
    needed: Needed | None = None
    found: Copied = field(default_factory=Copied)
    _bytes: int = 0
    _results: dict[Path, bool] = field(default_factory=dict)
    _ends: float = field(default_factory=lambda: time.monotonic() + SECONDS_LIMIT)

    def take_untracked(self, names: Iterable[str]) -> None:
        """Files that git lists as not tracked and not ignored."""
        for name in names:
            path = self.root / name
            if name.endswith("/"):
                self.leave_out(name, REPOSITORY)
            elif not self.secrets and is_secret(name):
                self.leave_out(name, "looks like a secret")
            elif path.is_symlink() and (why := self._why_no_link(name)):
                self.leave_out(name, why)
            # A run directory inside the checkout holds YAML and JSON, which look like recipes:
            # with a hundred runs, all of them would be copied into the next.
            elif not path.is_file() or (not self._needs(name) and self._holds_results(path.parent)):
                continue
            elif not is_code(name):
                self._count(path)
            else:
                self.take(name)

    def leave_out(self, name: str, why: str) -> None:
        self.found.leave_out(name, why, needed=self._needs(name) and why != _NOWHERE)

    def _needs(self, name: str) -> bool:
        return self.needed is not None and self.needed.covers(name)

    def _why_no_link(self, name: str) -> str:
        """Why the content of a link is not copied: it is only where the running code needs it."""
        path = self.root / name
        if not self._needs(name) and not (self.needed is not None and self.needed.inside(name)):
            return "a symbolic link"
        if not path.exists():
            return _NOWHERE
        # a folder's content may be anything, and without end
        if path.is_dir():
            return "a symbolic link to a folder"
        return "looks like a secret" if not self.secrets and is_secret(str(path.resolve())) else ""

    def take(self, name: str) -> bool:
        """Copy one file; False (and the reason in `left_out`) where that cannot be."""
        if name in self.found.files:
            return True
        why = self._copy(name)
        if why:
            self.leave_out(name, why)
        return not why

    def _holds_results(self, folder: Path) -> bool:
        """Whether a folder belongs to a run or a sweep (also to the one that is being made)."""
        # each folder is asked once: thousands of files lie in few of them
        if folder not in self._results:
            has = {name: (folder / name).exists() for name in _MARKS}
            run = has["recipe.yaml"] and (has["status.json"] or has["argv.json"] or has["control"])
            sweep = has["plan.json"] and has["base.yaml"]
            above = (
                folder != self.root
                and folder != folder.parent
                and self._holds_results(folder.parent)
            )
            self._results[folder] = run or sweep or above
        return self._results[folder]

    def _count(self, path: Path) -> None:
        self.found.other_kinds[path.suffix.lower() or "no suffix"] += 1
        self.found.other_bytes += path.stat().st_size

    def _copy(self, name: str) -> str:
        """Why a file was not copied; "" where it was."""
        path = self.root / name
        if readable(name) != name:
            return "its name holds bytes that are no UTF-8, or control characters"
        # a link further up leads out of the checkout with everything below it
        if self._needs(name) and any(
            (self.root / folder).is_symlink() for folder in Path(name).parents
        ):
            return "below a symbolic link"
        if len(self.found.files) >= COUNT_LIMIT:
            return f"more than {COUNT_LIMIT:,} files"
        if time.monotonic() > self._ends:
            return f"copying took longer than {SECONDS_LIMIT:g} seconds"
        try:
            if path.stat().st_size > FILE_LIMIT:
                return f"larger than {FILE_LIMIT >> 20} MiB"
            data = path.read_bytes()
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if self._bytes + len(data) > TOTAL_LIMIT:
            return f"more than {TOTAL_LIMIT >> 20} MiB together"
        # By its content too: a key may be called anything.
        if not self.secrets and PRIVATE_KEY.search(data):
            return "holds a private key"
        self._write(name, data)
        return ""

    def _write(self, name: str, data: bytes) -> None:
        """Not fsynced one by one, which takes minutes for a thousand:
        git.json, written after, has the digests.
        """
        self._bytes += len(data)
        self.found.files[name] = hashlib.sha256(data).hexdigest()
        if self.target is not None:
            copy = self.target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)
