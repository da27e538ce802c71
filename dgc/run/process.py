"""Which process it was (pid, start and boot together name one for good), and how it ends with its
parent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def process_start(pid: int) -> float:
    """Start time of a process, which with pid and boot names it for good (0.0:
    there is none, or it has ended).

    On Linux in seconds since the machine came up: the start by the wall clock moves whenever that
    clock is set.
    """
    try:
        process = psutil.Process(pid)
        # a zombie has a start time still, but computes nothing any more
        if process.status() == psutil.STATUS_ZOMBIE:
            return 0.0
        return float(process.create_time()) if not _BOOT_ID.exists() else _start_after_boot(pid)
    except (psutil.Error, OSError):
        return 0.0


def _start_after_boot(pid: int) -> float:
    """Field 22 of /proc/PID/stat; the name before it, in parentheses, may hold anything."""
    # from the last parenthesis on: a process may be called anything, brackets and blanks too
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    """Names the time since this machine came up ('' where the system gives no such name)."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def is_process(pid: int, start_token: float, boot: str) -> bool:
    """Whether the process that was recorded by these three still lives on this machine."""
    # another boot means another process, whatever pid and start say
    return boot == boot_id() and start_token > 0 and process_start(pid) == start_token


def when_parent_ends(number: int) -> Callable[[], None]:
    """A function that asks the kernel to send its process this signal when the parent ends; on
    other systems than Linux it does nothing.

    The library is opened here and not in that function, so that it may be called between fork and
    exec. The parent may have ended before it asks: a caller compares os.getppid() afterwards.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    import ctypes  # only here: every listing of runs imports this file

    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)

    return ask
