"""What code ran: git commit, difference, untracked sources, packages. No torch; written once when a
run is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dgc
from dgc.kernels.sources import kernels_digest
from dgc.run import code_record
from dgc.run.code_record import Sentence, sentences
from dgc.run.files import write_json
from dgc.run.paths import RunDir

INSTRUCTION_LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
)
# The files whose text decides what a training computes; a resumed run compares their digest.
_COMPUTING = ("schedule.py", "layers", "models", "kernels", "data", "train")


def record_code(run: RunDir, argv: Sequence[str] | None = None) -> list[Sentence]:
    """Write argv.json, git.json, git.patch and untracked/ of a run where they are absent.

    Returns what the user should know of the record (level and sentence); it is written to the run's
    log too.
    """
    if not run.argv.exists():
        write_json(
            run.argv, {"argv": list(sys.argv if argv is None else argv), "cwd": str(Path.cwd())}
        )
    # once: a resumed run keeps the record of its first start, changes since stand in RESUME events
    if run.git.exists():
        return []
    facts = code_facts(None, run)
    write_json(run.git, facts)
    said = sentences(facts)
    for level, text in said:
        append_log(run, f"{level}: {text}")
    return said


def code_facts(root: Path | None = None, run: RunDir | None = None) -> dict[str, Any]:
    """git.json (see dgc.run.code_record) of the running code,
    or of the checkout at `root`; copies go into `run`, if given.

    `code` is the digest of what computes.
    """
    found = code_record.own_code_facts(run) if root is None else code_record.code_facts(root, run)
    return found | {"code": code_digest()}


def code_digest() -> str:
    """SHA-256 over the sources that decide what a training computes (names and bytes, in order).

    The kernels count by the digest of their sources and flags, which an installation without
    sources still has.
    """
    package = Path(dgc.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in _computing_sources(package):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    # an installation ships no sources of the kernels, but the library says what it was made of
    digest.update(b"kernels\0" + kernels_digest(package).encode())
    return digest.hexdigest()


def _computing_sources(package: Path) -> Iterator[Path]:
    for name in _COMPUTING:
        path = package / name
        yield from sorted(path.rglob("*.py") if path.is_dir() else [path])


def packages() -> dict[str, str]:
    """Name -> version of every installed distribution,
    by the names of their folders (reading them takes a second).
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        for info in Path(folder).glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            # the first on the path is the one that an import would find
            found.setdefault(name.replace("_", "-"), version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def machine() -> dict[str, Any]:
    """Facts of the interpreter and the host that need no torch."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def instruction_limits() -> dict[str, str]:
    """The variables of the environment that hold PyTorch
    to a narrower instruction set, where they are set.
    """
    return {name: os.environ[name] for name in INSTRUCTION_LIMITS if name in os.environ}


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
