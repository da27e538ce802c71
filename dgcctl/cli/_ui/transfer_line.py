"""The progress line of a transfer, on stderr: rewritten in place on a terminal,
silent elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from dgc.hub.registry import MIB
from dgcctl.cli._ui import diagnostics

_REDRAW_SECONDS = 0.1
_BAR = 24


@contextlib.contextmanager
def progress_line(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Within the block: a function to call with the bytes done and in all."""
    shown = (
        sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and diagnostics.verbosity() >= 0
    )
    began = last = time.monotonic()
    first: list[int] = []

    def draw(done: int, total: int | None) -> None:
        nonlocal last
        first[:] = first or [done]
        now = time.monotonic()
        if shown and (now - last >= _REDRAW_SECONDS or done == total):
            last = now
            speed = (done - first[0]) / max(now - began, 1e-3)
            diagnostics.draw(bar_text(name, done, total, speed))

    try:
        yield draw
    finally:
        if shown and first:
            diagnostics.draw("")


def bar_text(name: str, done: int, total: int | None, speed: float) -> str:
    """`name  [#####.....]  12.3 of 92.3 MiB  4.5 MiB/s  18 s left`; without a total only what came
    so far.
    """
    rate = f"{speed / MIB:.1f} MiB/s"
    if not total:
        return f"{name}  {done / MIB:.1f} MiB  {rate}"
    filled = _BAR * done // total
    left = f"{(total - done) / speed:.0f} s left" if speed > 0 else ""
    return (
        f"{name}  [{'#' * filled}{'.' * (_BAR - filled)}]  {done / MIB:.1f} of {total / MIB:.1f}"
        f" MiB  {rate}  {left}"
    )
