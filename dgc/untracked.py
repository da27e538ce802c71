"""Which files that git does not track go into the record of a run, and why others do not. No torch.

Copied is what can be code or a recipe, by its name: a training beside three thousand images must start at once. What
looks like a secret is never copied unasked, whether git tracks it or not.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dgc.git import readable

FILE_LIMIT = 1 << 20
TOTAL_LIMIT = 16 << 20
COUNT_LIMIT = 1000
SECONDS_LIMIT = 20.0
LISTED_LIMIT = 100
# Written as text, a line a kind, because that is how one reads and extends them.
_CODE_SUFFIXES = """
.py .pyi .pyx .pxd .ipynb .c .cc .cpp .cxx .h .hh .hpp .hxx .inc .cu .cuh .s .sh .bash .jl .r .lua .rs .go
.toml .cfg .ini .conf .yaml .yml .json .cmake .mk .patch .diff
"""
_CODE_NAMES = "makefile dockerfile cmakelists.txt requirements.txt constraints.txt dvc.lock"
_SECRET_NAMES = """
.env .env.* *.env .envrc .netrc _netrc .pypirc .npmrc .pgpass .git-credentials .htpasswd .dockercfg
*.pem *.key *.p12 *.pfx *.jks *.keystore *.kdbx *.ppk *.ovpn *.token token token.* *_token.*
id_rsa* id_dsa* id_ecdsa* id_ed25519* *credential* *secret* *password* *passwd* *apikey* *api_key*
service-account*.json service_account*.json kubeconfig auth.json
"""
CODE_SUFFIXES, CODE_NAMES = frozenset(_CODE_SUFFIXES.split()), frozenset(_CODE_NAMES.split())
SECRET_NAMES = tuple(_SECRET_NAMES.split())
SECRET_FOLDERS = frozenset((".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".gcloud"))
_MARKS = ("recipe.yaml", "status.json", "argv.json", "control", "plan.json", "base.yaml")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY")


@dataclass
class Copied:
    """File -> SHA-256 of what was copied, file -> why of what was not, and a count of what is neither code nor recipe.

    At most LISTED_LIMIT files are named in `left_out`; `left_out_count` counts all of them.
    """

    files: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    left_out_count: int = 0
    other_kinds: Counter[str] = field(default_factory=Counter)
    other_bytes: int = 0

    def leave_out(self, name: str, why: str) -> None:
        self.left_out_count += 1
        if len(self.left_out) < LISTED_LIMIT:
            self.left_out[readable(name)] = why


@dataclass
class Collector:
    """Copies files of `root` below `target` (None: only their digests), within the limits."""

    root: Path
    target: Path | None
    secrets: bool = False
    found: Copied = field(default_factory=Copied)
    _bytes: int = 0
    _results: dict[Path, bool] = field(default_factory=dict)
    _ends: float = field(default_factory=lambda: time.monotonic() + SECONDS_LIMIT)

    def take_untracked(self, names: Iterable[str]) -> None:
        """Files that git lists as not tracked and not ignored."""
        for name in names:
            path = self.root / name
            if name.endswith("/"):
                self.found.leave_out(name, "a git repository of its own")
            elif not self.secrets and is_secret(name):
                self.found.leave_out(name, "looks like a secret")
            elif path.is_symlink():
                self.found.leave_out(name, "a symbolic link")
            elif not path.is_file() or self._holds_results(path.parent):
                continue
            elif not is_code(name):
                self._count(path)
            else:
                self.take(name)

    def take(self, name: str) -> bool:
        """Copy one file; False (and the reason in `left_out`) where that cannot be."""
        why = self._copy(name)
        if why:
            self.found.leave_out(name, why)
        return not why

    def _holds_results(self, folder: Path) -> bool:
        """Whether a folder belongs to a run or a sweep (also to the one that is being made)."""
        if folder not in self._results:
            has = {name: (folder / name).exists() for name in _MARKS}
            run = has["recipe.yaml"] and (has["status.json"] or has["argv.json"] or has["control"])
            sweep = has["plan.json"] and has["base.yaml"]
            above = folder != self.root and folder != folder.parent and self._holds_results(folder.parent)
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
        if not self.secrets and _PRIVATE_KEY.search(data):
            return "holds a private key"
        self._write(name, data)
        return ""

    def _write(self, name: str, data: bytes) -> None:
        """Not fsynced one by one, which takes minutes for a thousand: git.json, written after, has the digests."""
        self._bytes += len(data)
        self.found.files[name] = hashlib.sha256(data).hexdigest()
        if self.target is not None:
            copy = self.target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)


def is_code(name: str) -> bool:
    """Whether a file can be code or a recipe, by its name."""
    path = Path(name.lower())
    return path.suffix in CODE_SUFFIXES or path.name in CODE_NAMES


def is_secret(name: str) -> bool:
    """Whether a file looks like a secret, by its name or a folder of it."""
    path = Path(name.lower())
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in SECRET_NAMES) or not SECRET_FOLDERS.isdisjoint(
        path.parts[:-1]
    )
