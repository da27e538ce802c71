"""Limits a child process puts on itself before it touches a foreign file. No torch."""

from __future__ import annotations

import resource
from pathlib import Path

CPU_SECONDS = 120
_HEADROOM = 512 << 20


def apply(file_bytes: int) -> None:
    """Memory: what is in use, 8 times the file, and 512 MiB. CPU: 120 s. Files written: 4 times the
    file and 64 MiB.

    Called after torch is imported, whose libraries alone may map gigabytes.
    """
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, in_use + 8 * file_bytes + _HEADROOM)
    _lower(resource.RLIMIT_CPU, CPU_SECONDS)
    _lower(resource.RLIMIT_FSIZE, 4 * file_bytes + (64 << 20))
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, limit))
