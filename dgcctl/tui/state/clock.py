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
