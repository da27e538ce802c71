"""Interleaved timing: one call of each contender after the other, round by round, so that drift
hits all alike.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

LEAST, MOST = 7, 40
# after a rest clock and caches take a while to settle, which a short call would feel most
WARM_S = 0.1
LONG_S = 0.25  # a call of this length settles them itself
# idle threads of an engine spin (those of ONNX Runtime for 60 ms), and would take a core from the
# next
REST_S = 0.1


@dataclass(frozen=True)
class Sample:
    """Milliseconds per image: median, quartiles, and how many rounds they come from."""

    median: float
    low: float
    high: float
    n: int


def interleaved(
    calls: Mapping[str, Callable[[], object]], images: int, budget_s: float
) -> dict[str, Sample]:
    """Rounds of all calls until the budget is spent: at least LEAST, at most MOST."""
    # Once each, for what is made at the first call.
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + budget_s
    rounds = 0
    while rounds < LEAST or (rounds < MOST and time.perf_counter() < end):
        for name, call in calls.items():
            time.sleep(REST_S)
            seconds[name].append(_timed(call))
        rounds += 1
    return {name: _sample(times, images) for name, times in seconds.items()}


def _timed(call: Callable[[], object]) -> float:
    """Seconds of one call in steady work:
    its like go before it until clock and caches are what they stay.
    """
    warm = time.perf_counter() + WARM_S
    while True:
        start = time.perf_counter()
        call()
        end = time.perf_counter()
        if start > warm or end - start > LONG_S:
            return end - start


def _sample(seconds: list[float], images: int) -> Sample:
    ms = sorted(s * 1e3 / images for s in seconds)
    low, _, high = statistics.quantiles(ms, n=4, method="inclusive")
    return Sample(round(statistics.median(ms), 4), round(low, 4), round(high, 4), len(ms))
