"""The code a run ran with: git commit, patch of what was changed, untracked sources. Reads the checkout only."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dgc
from dgc.fs import atomic_write
from dgc.records import RunDir, write_json

MAX_FILE = 1 << 20
MAX_TOTAL = 16 << 20
_SECONDS = 30


def record_code(run: RunDir) -> None:
    """Write git.json, git.patch and untracked/ of a run. Without a git checkout git.json says so."""
    top = _toplevel(Path(dgc.__file__).parent) or _toplevel(Path.cwd())
    write_json(run.git, {"commit": None, "why": "not in a git checkout"} if top is None else _capture(run, top))


def _capture(run: RunDir, top: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "commit": _git(top, "rev-parse", "HEAD").decode().strip() or None,
        "branch": _git(top, "rev-parse", "--abbrev-ref", "HEAD").decode().strip(),
        "root": str(top),
    }
    patch = _git(top, "diff", "--binary", "HEAD")
    if patch:
        atomic_write(run.file("git.patch"), patch, point="patch")
        facts["patch_sha256"] = hashlib.sha256(patch).hexdigest()
    kept, left_out = _copy_untracked(run, top)
    return {**facts, "dirty": bool(patch or kept or left_out), "untracked": kept, "untracked_left_out": left_out}


def _copy_untracked(run: RunDir, top: Path) -> tuple[dict[str, str], list[str]]:
    """Copies each untracked file (name -> SHA-256) up to the size limits; the others are named."""
    kept: dict[str, str] = {}
    left_out: list[str] = []
    total = 0
    for name in _untracked(run, top):
        size = (top / name).stat().st_size
        if size > MAX_FILE or total + size > MAX_TOTAL:
            left_out.append(name)
            continue
        total += size
        kept[name] = _copy(top / name, run.file("untracked") / name)
    return kept, left_out


def _untracked(run: RunDir, top: Path) -> Iterator[str]:
    runs = run.path.resolve().parent
    for raw in _git(top, "ls-files", "--others", "--exclude-standard", "-z").split(b"\0"):
        path = top / raw.decode("utf-8", "surrogateescape")
        if raw and path.is_file() and not path.is_symlink() and runs not in path.resolve().parents:
            yield str(path.relative_to(top))


def _copy(source: Path, target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _toplevel(folder: Path) -> Path | None:
    name = _git(folder, "rev-parse", "--show-toplevel").decode().strip()
    return Path(name) if name else None


def _git(folder: Path, *arguments: str) -> bytes:
    """Output of a git command; empty where it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            check=False,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return b"" if done.returncode else done.stdout
