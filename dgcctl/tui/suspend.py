"""Coming back from a SIGSTOP that did not come from ctrl+z, and leaving at a SIGTERM.

Textual takes every SIGCONT for the end of its own suspension and starts the terminal a second time:
a second reader of the keys, which then get lost, and a terminal left raw at the end. So its handler
is called only where it had suspended.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

# how the dashboard ends then, as a process that the signal itself had ended
TERMINATED = 128 + signal.SIGTERM


def leave_at_sigterm(leave: Callable[[None, int], object]) -> None:
    """By the usual way out, which puts the terminal back. `leave`: App.exit."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave, None, TERMINATED)


def guard_sigcont(driver: Any, redraw: Callable[[], object]) -> None:
    """Put a handler before the driver's own. Does nothing for a driver that has none (headless,
    web).
    """
    known = signal.getsignal(signal.SIGCONT)
    if not callable(known) or not hasattr(driver, "_must_signal_resume"):
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if driver._must_signal_resume:
            known(signum, frame)
        else:
            redraw()

    signal.signal(signal.SIGCONT, handle)
