"""What this machine offers and what is wrong with it, one finding each. No torch: a process is
asked for its facts.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import dgc
from dgc.errors import DgcError
from dgc.run.files import free_bytes
from dgcctl.core import settings
from dgcctl.core.launch.query import query
from dgcctl.core.repro import gitstate, leftovers

MIN_PYTHON = (3, 11)
MIN_TORCH = (2, 10)
MIN_GLIBC = (2, 34)
# (system, machine, C library) -> what was tried there: the table of README.md, and no more
_TRIED = {
    ("Linux", "x86_64", "glibc"): "everything was tried",
    ("Linux", "aarch64", "glibc"): "plan files were tried in an emulator, nothing else",
}
LITTLE_DISK = 2 << 30
LITTLE_MEMORY = 2 << 30
_PACKAGES = ("torchvision", "numpy", "pillow", "safetensors", "pydantic", "typer", "textual", "dvc")


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `advice` says what to do where it is no `ok`."""

    name: str
    value: str
    level: Level = Level.OK
    advice: str = ""


def examine(runs: Path, *, say: Callable[[str], None]) -> Iterator[Finding]:
    """All findings, in the order in which they are worth reading."""
    yield _python()
    yield platform_finding(platform.system(), platform.machine(), platform.libc_ver())
    yield from _torch(say)
    yield from _packages()
    yield _memory()
    yield _folder("runs folder", runs)
    yield _folder("cache folder", settings.cache_dir())
    data = settings.data_dir()
    yield Finding(
        "data folder",
        f"{data or 'data'} ({'there' if os.path.isdir(data or 'data') else 'not there yet'})",
    )
    yield Finding(
        "network", "not used (DGCCTL_OFFLINE)" if settings.offline() else "used for downloads only"
    )
    yield _tool("git", "without it a run cannot record its code: install git")
    yield from left_behind()


def left_behind() -> Iterator[Finding]:
    """Worktrees of killed reruns in the repositories around here
    and of the running code; they are removed.
    """
    places = (
        gitstate.toplevel(folder) for folder in (Path.cwd(), Path(dgc.__file__).resolve().parent)
    )
    # each repository once: the working directory is often that of the code
    for place in dict.fromkeys(places):
        for tree in leftovers.remove(place):
            yield Finding("killed reruns", f"removed {tree}")


def _python() -> Finding:
    value = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < MIN_PYTHON:
        return Finding("python", value, Level.PROBLEM, "use Python 3.11 or newer")
    return Finding("python", value)


def platform_finding(system: str, machine: str, libc: tuple[str, str]) -> Finding:
    """Whether this project was tried on such a machine; where it was not, that is said."""
    name, version = libc
    value = " ".join(word for word in (system, machine, name, version) if word)
    tried = _TRIED.get((system, machine, name))
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    if tried and numbers >= list(MIN_GLIBC):
        return Finding("platform", f"{value} ({tried})")
    return Finding(
        "platform", f"{value} (not tried)", Level.NOTE,
        "it was tried on Linux with glibc 2.34 or newer: `make test` tells about yours",
    )  # fmt: skip


def _torch(say: Callable[[str], None]) -> Iterator[Finding]:
    """What the process that imports torch found, or why it could not."""
    # the version of ours needs no torch, so it is there also where torch is broken
    yield Finding("dgcctl", dgc.__version__)
    try:
        found = query("dgc.jobs.doctor", [], say=say)
    except DgcError as error:
        yield Finding(
            "torch",
            "cannot be used",
            Level.PROBLEM,
            f"{error}: reinstall with `pip install torch torchvision`",
        )
        return
    facts = found["torch"]
    yield _torch_version(facts)
    yield Finding(
        "CPU", f"{_cpus()} cores, {facts['cpu_capability']}, {facts['threads']} threads for torch"
    )
    yield from _gpus(facts)
    yield _native(found["native"])


def _torch_version(facts: dict[str, Any]) -> Finding:
    version = str(facts["torch"])
    build = f"CUDA {facts['cuda_build']}" if facts["cuda_build"] else "CPU build"
    # major and minor alone; a local part (+cpu, +cu130) is no number
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2] if part.isdigit())
    if numbers < MIN_TORCH:
        floor = ".".join(map(str, MIN_TORCH))
        advice = f"older than {floor} loads checkpoints unsafely: `pip install 'torch>={floor}'`"
        return Finding("torch", f"{version}, {build}", Level.PROBLEM, advice)
    return Finding("torch", f"{version}, {build}, torchvision {facts['torchvision']}")


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus(facts: dict[str, Any]) -> Iterator[Finding]:
    for gpu in facts["gpus"]:
        value = (
            f"{gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB, compute capability"
            f" {gpu['capability']}"
        )
        yield Finding(f"GPU {gpu['index']}", value)
    if not facts["gpus"]:
        why = (
            "torch is built for CUDA, but sees no device"
            if facts["cuda_build"]
            else "a CPU build of torch"
        )
        yield Finding(
            "GPU",
            "none",
            Level.NOTE,
            # no problem: small studies run without one
            f"{why}: the demo and small studies train on the CPU, the paper's recipes want a GPU",
        )


def _native(facts: dict[str, Any]) -> Finding:
    rest = ", ".join(
        f"{key} {_words(facts[key])}" for key in ("isa", "features", "threads") if facts.get(key)
    )
    if facts.get("error"):
        return Finding("native kernels", "cannot be chosen", Level.PROBLEM, str(facts["error"]))
    if facts.get("stale"):
        return Finding(
            "native kernels", f"in use ({rest}), but old", Level.NOTE, str(facts["stale"])
        )
    if facts.get("available"):
        return Finding("native kernels", f"in use ({rest})")
    why = facts.get("why") or facts.get("why_not") or rest or "no reason given"
    return Finding(
        "native kernels",
        "not in use",
        Level.NOTE,
        f"{why}: `pip install -e .` builds them where there is a C++ compiler",
    )


def _words(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def _packages() -> Iterator[Finding]:
    versions = {name: _version(name) for name in _PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    value = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if missing:
        yield Finding(
            "packages",
            value,
            Level.PROBLEM,
            f"not installed: {', '.join(missing)}: `pip install -e .` again",
        )
    else:
        yield Finding("packages", value)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    value = f"{free / 2**30:.1f} GiB free of {psutil.virtual_memory().total / 2**30:.1f}"
    if free < LITTLE_MEMORY:
        return Finding(
            "memory",
            value,
            Level.PROBLEM,
            "close something, or train with a smaller train.batch_size",
        )
    return Finding("memory", value)


def _folder(name: str, folder: Path) -> Finding:
    """Whether it can be written,
    itself or the nearest folder above it that exists; and the room there.
    """
    # the folder itself may not exist yet, and is then made in this one
    existing = next(
        # os.path: what may not be looked at is as good as absent
        parent
        for parent in (folder.absolute(), *folder.absolute().parents)
        if os.path.exists(parent)
    )
    free = free_bytes(existing)
    value = f"{folder} ({free / 2**30:.1f} GiB free)"
    variable = "DGCCTL_RUNS_DIR" if name.startswith("runs") else "DGCCTL_CACHE_DIR"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            name,
            value,
            Level.PROBLEM,
            f"{existing} cannot be written: set {variable} to another folder",
        )
    if free < LITTLE_DISK:
        return Finding(
            name, value, Level.PROBLEM, f"little room: free some, or set {variable} to another disk"
        )
    return Finding(name, value)


def _tool(name: str, advice: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, path) if path else Finding(name, "not found", Level.NOTE, advice)
