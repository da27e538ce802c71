"""Waiting in tests: for a state, never for a time. GUARD only ends what hangs; nothing may come
near it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

GUARD = 600.0  # seconds; the longest of these waits usually takes some ten seconds


def wait_for(holds: Callable[[], object], what: str = "it", pause: float = 0.01) -> None:
    """Until `holds()` is true; AssertionError after GUARD seconds."""
    end = time.monotonic() + GUARD
    while not holds():
        assert time.monotonic() < end, f"waited {GUARD:.0f} s in vain: {what} did not happen"
        time.sleep(pause)


def wait_for_file(path: Path) -> None:
    wait_for(path.exists, f"{path} appearing")


def wait_for_text(path: Path) -> str:
    """What another process wrote there, once there is anything (a short text is written at once)."""
    wait_for(lambda: path.exists() and path.stat().st_size > 0, f"{path} being written")
    return path.read_text()
