"""What code ran: git commit, difference, untracked sources, packages. No torch; written once when a run is made."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dgc
from dgc.fs import atomic_write
from dgc.kernel_sources import kernels_digest
from dgc.records import RunDir, write_json

UNTRACKED_FILE_LIMIT = 1 << 20
UNTRACKED_TOTAL_LIMIT = 16 << 20
# The files whose text decides what a training computes; a resumed run compares their digest.
_COMPUTING = ("build.py", "schedule.py", "layers", "ops", "models", "native", "data", "train")


def record_code(run: RunDir, argv: Sequence[str] | None = None) -> None:
    """Write argv.json, git.json, git.patch and untracked/ of a run where they are absent."""
    if not run.argv.exists():
        write_json(run.argv, {"argv": list(sys.argv if argv is None else argv), "cwd": str(Path.cwd())})
    if not run.git.exists():
        write_json(run.git, code_facts(checkout(), run))


def checkout() -> Path:
    """The folder whose git describes the running code: that of the package, else the current one."""
    source = Path(dgc.__file__).resolve().parent.parent
    return source if _git(source, "rev-parse", "--show-toplevel") else Path.cwd()


def code_facts(folder: Path, run: RunDir | None = None) -> dict[str, Any]:
    """commit, branch, root, dirty, patch_sha256, untracked, untracked_left_out, code; copies into `run`, if given.

    `commit` is None outside a git checkout. `untracked` maps each copied file to its SHA-256; those left out are too
    large to copy. `code` is the digest of what computes.
    """
    commit = _git(folder, "rev-parse", "HEAD").decode().strip() or None
    facts: dict[str, Any] = {"commit": commit, "code": code_digest()}
    if commit is None:
        return facts
    root = Path(_git(folder, "rev-parse", "--show-toplevel").decode().strip())
    patch = _git(root, "diff", "--binary", "HEAD")
    untracked, left_out = _untracked(root, run)
    if run is not None and patch:
        atomic_write(run.file("git.patch"), patch)
    return facts | {
        "branch": _git(root, "rev-parse", "--abbrev-ref", "HEAD").decode().strip(),
        "root": str(root),
        "dirty": bool(patch or untracked or left_out),
        "patch_sha256": hashlib.sha256(patch).hexdigest() if patch else None,
        "untracked": untracked,
        "untracked_left_out": left_out,
    }


def _untracked(root: Path, run: RunDir | None) -> tuple[dict[str, str], list[str]]:
    """Digests of the untracked, not ignored files (copied into the run), and those too large to copy."""
    copied: dict[str, str] = {}
    left_out: list[str] = []
    budget = UNTRACKED_TOTAL_LIMIT
    for name in _git(root, "ls-files", "--others", "--exclude-standard", "-z").decode().split("\0"):
        source = root / name
        if not name or not source.is_file() or source.is_symlink() or _inside_a_run(source):
            continue
        data = source.read_bytes() if source.stat().st_size <= min(UNTRACKED_FILE_LIMIT, budget) else None
        if data is None:
            left_out.append(name)
            continue
        budget -= len(data)
        copied[name] = hashlib.sha256(data).hexdigest()
        if run is not None:
            target = run.file("untracked") / name
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target, data)
    return copied, left_out


def _inside_a_run(path: Path) -> bool:
    return any((parent / "recipe.yaml").exists() and (parent / "status.json").exists() for parent in path.parents)


def code_digest() -> str:
    """SHA-256 over the sources that decide what a training computes (names and bytes, in order).

    The kernels count by the digest of their sources and flags, which an installation without sources still has.
    """
    package = Path(dgc.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in _computing_sources(package):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(b"kernels\0" + kernels_digest(package).encode())
    return digest.hexdigest()


def _computing_sources(package: Path) -> Iterator[Path]:
    for name in _COMPUTING:
        path = package / name
        yield from sorted(path.rglob("*.py") if path.is_dir() else [path])


def packages() -> dict[str, str]:
    """Name -> version of every installed distribution, by the names of their folders (reading them takes a second)."""
    found: dict[str, str] = {}
    for folder in sys.path:
        for info in Path(folder).glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            found.setdefault(name.replace("_", "-"), version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def machine() -> dict[str, Any]:
    """Facts of the interpreter and the host that need no torch."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def cpu_name() -> str:
    """The processor's marketing name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def append_log(run: RunDir, text: str) -> None:
    """A line of log.txt, with its time (UTC). A log that cannot be written stops nothing."""
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n"
    with contextlib.suppress(OSError), run.log.open("a") as log:
        log.write(line)


def _git(folder: Path, *arguments: str) -> bytes:
    """Standard output of git (empty where there is no git, no repository or no answer)."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
