"""What time it is, for ages and durations: a clock that is set back or forward meanwhile moves
nothing on screen.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Wall-clock time as it was at the start, moved on by the monotonic clock."""

    def __init__(
        self, wall: Callable[[], float] = time.time, tick: Callable[[], float] = time.monotonic
    ) -> None:
        self._tick = tick
        self._offset = wall() - tick()

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return self._offset + self._tick()


def fixed(moment: float) -> Clock:
    """A clock that stands still (tests and pictures)."""
    return Clock(lambda: moment, lambda: 0.0)


def duration(seconds: float) -> str:
    """`42s`, `7m 05s`, `3h 20m`, `5d 4h`; a negative one is `0s`."""
    total = max(0, int(seconds))
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m {total % 60:02d}s"
    if total < 86400:
        return f"{total // 3600}h {total % 3600 // 60:02d}m"
    return f"{total // 86400}d {total % 86400 // 3600}h"


def age(seconds: float) -> str:
    """An age in its largest unit, so that it seldom changes: `<1m`, `7m`, `3h`, `5d`."""
    total = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if total >= size:
            return f"{total // size}{unit}"
    return "<1m"


def stamp(moment: float) -> str:
    """`2026-01-05 09:00:00Z`."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment))
