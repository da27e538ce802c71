"""Lines into one span a dot column, and spans into braille cells (2 x 4 dots each), as arrays.

The canvas widget comes from textual-hires-canvas, which draws line by line in Python. Own code
only fills the cells: curves are drawn anew at every key, and whole arrays at once cost far less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)
# Which of six dot columns a line shows: tells overlaid runs apart where there is no colour.
DASHES = (
    (1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 0, 0),
    (1, 0, 1, 0, 1, 0),
    (1, 1, 1, 0, 1, 0),
    (1, 0, 0, 1, 0, 0),
)


@dataclass(frozen=True)
class Spans:
    """A line reduced to dot columns: in column `at[i]` it reaches from `low[i]` to `high[i]`."""

    at: Ints
    low: Floats
    high: Floats
    broken: Ints  # columns that hold a value that is no number


def visible(x: Floats, first: float, last: float) -> slice:
    """The part of sorted `x` inside [first, last], with one neighbour on either side so that lines
    reach the edge.
    """
    begin = int(np.searchsorted(x, first, "left"))
    end = int(np.searchsorted(x, last, "right"))
    return slice(max(0, begin - 1), min(len(x), end + 1))


def spans(x: Floats, y: Floats, first: float, last: float, columns: int) -> Spans:
    """Reduce a line to at most one span a dot column, keeping every extreme: nothing seen is
    averaged away.
    """
    width = (last - first) or 1.0
    # The neighbours outside the window fall on the edge columns, so that a line enters and leaves
    # the chart where it should.
    at = np.clip(((x - first) * ((columns - 1) / width) + 0.5).astype(np.int64), 0, columns - 1)
    finite = np.isfinite(y)
    broken = np.empty(0, np.int64)
    if not finite.all():
        broken = np.unique(at[~finite])
        at, y = at[finite], y[finite]
    if len(at) == 0:
        empty = np.empty(0)
        return Spans(np.empty(0, np.int64), empty, empty, broken)
    # x grows, so the points of a column stand in a row: each run of equal columns is one span.
    starts = np.flatnonzero(np.diff(at, prepend=-1))
    return _joined(at[starts], y, starts, broken)


def _joined(at: Ints, y: Floats, starts: Ints, broken: Ints) -> Spans:
    """Fill the columns between points by interpolation and stretch each span to its left
    neighbour's end.
    """
    ends = np.append(starts[1:], len(y)) - 1
    every = np.arange(at[0], at[-1] + 1)
    filled = np.interp(every, at, y[ends])
    low, high, entry = filled.copy(), filled.copy(), filled.copy()
    own = at - at[0]
    low[own], high[own] = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    entry[own] = y[starts]
    # Each column reaches to where its left neighbour ended; else a steep line would be dots with
    # gaps.
    low[1:] = np.minimum(low[1:], filled[:-1])
    high[1:] = np.maximum(high[1:], filled[:-1])
    return Spans(every, low, high, broken)


def cells(
    spans: Spans, low: float, high: float, width: int, height: int, dash: int = 0
) -> NDArray[np.uint8]:
    """Braille bits (height, width) of a line drawn between the values `low` (bottom) and `high`
    (top).
    """
    dots = np.zeros((4 * height, 2 * width), dtype=np.uint8)
    scale = (4 * height - 1) / ((high - low) or 1.0)
    # One dot beyond either edge, not on it: what lies outside is not drawn, and is not drawn as
    # if it lay at the edge.
    top = np.clip((high - spans.high) * scale + 0.5, -1, 4 * height).astype(np.int64)
    bottom = np.clip((high - spans.low) * scale + 0.5, -1, 4 * height).astype(np.int64)
    rows = np.arange(4 * height)[:, None]
    shown = np.array(DASHES[dash % len(DASHES)], dtype=bool)[spans.at % 6]
    dots[:, spans.at] = (rows >= top) & (rows <= bottom) & shown
    # Dots to cells of 4 x 2, and a cell to the sum of its bits: the order of a braille character.
    blocks = dots.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)
    return np.asarray((blocks * _BITS).sum(axis=(2, 3)), dtype=np.uint8)


def dot(value: float, first: float, last: float, count: int) -> int:
    """Which of `count` dots from `first` to `last` a value falls on, as `cells` and `spans` place
    it.
    """
    scale = (count - 1) / ((last - first) or 1.0)  # in the order of `cells`, to the last bit
    return min(count - 1, max(0, math.floor((value - first) * scale + 0.5)))


def characters(bits: NDArray[np.uint8]) -> Iterator[tuple[int, int, str]]:
    """(column, row, braille character) of each cell that is not empty."""
    rows, columns = np.nonzero(bits)
    for row, column, value in zip(
        rows.tolist(), columns.tolist(), bits[rows, columns].tolist(), strict=True
    ):
        yield column, row, chr(0x2800 + value)


def limits(values: list[Floats]) -> tuple[float, float] | None:
    """Lowest and highest finite value, with a little room; None where there is none."""
    kept = [part[np.isfinite(part)] for part in values]
    kept = [part for part in kept if len(part)]
    if not kept:
        return None
    low, high = min(float(part.min()) for part in kept), max(float(part.max()) for part in kept)
    size = max(abs(low), abs(high))
    # a difference in the last digits (of sums in another order) is none
    pad = (high - low) * 0.04 if high - low > 1e-9 * size else size * 0.1 or 1.0
    return low - pad, high + pad


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers in [low, high], and at least two."""
    if count < 1 or not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    # The step among 1, 2, 5 times a power of ten that gives at most as
    # many as wanted; a finer one where that left fewer than two.
    raw = (high - low) / count
    power = math.floor(math.log10(raw))
    at = next(i for i, factor in enumerate((1, 2, 5, 10)) if factor * 10.0**power >= raw * 0.999)
    index = 3 * power + at  # of the steps ..., 1, 2, 5, 10, 20, 50, ...
    for finer in range(9):
        found = _multiples(low, high, _STEPS[(index - finer) % 3] * 10.0 ** ((index - finer) // 3))
        if len(found) >= 2:
            return found
    return []


_STEPS = (1, 2, 5)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    # Rounded, for 3 * 0.1 is not 0.3.
    digits = max(0, 2 - math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(first, last + 1)]


def between(places: list[float], low: float, high: float, *, log: bool) -> list[float]:
    """Where the small ticks are: halves of the distance between two, of powers of ten 2 to 9."""
    if len(places) < 2:
        return []
    step = places[1] - places[0]
    if log and math.isclose(step, 1.0):
        first = math.floor(low)
        found = [p + math.log10(k) for p in range(first, math.ceil(high)) for k in range(2, 10)]
    elif log:
        return []
    else:
        found = [place + step / 2 for place in (places[0] - step, *places)]
    return [place for place in found if low <= place <= high]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten between two logarithms, or round numbers where the range holds fewer than two
    of them.
    """
    powers = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    if len(powers) >= 2:
        return powers[:: max(1, -(-len(powers) // max(2, count)))]
    return [math.log10(value) for value in ticks(10**low, 10**high, count) if value > 0]


# seconds between two ticks of a time
_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def time_ticks(first: float, last: float, count: int) -> list[float]:
    """About `count` round durations in [first, last], in seconds."""
    raw = (last - first) / max(1, count)
    step = next((step for step in _TIMES if step >= raw), 0)
    if raw < 1 or not step:
        days = ticks(first / 86400, last / 86400, count)
        return ticks(first, last, count) if raw < 1 else [day * 86400 for day in days]
    return _multiples(first, last, step)


def robust_limits(traces: list[list[Floats]]) -> tuple[float, float] | None:
    """The range in which the curves lie, without what lies far outside: single values of a curve
    (beyond three times the width of its middle half), and curves that are ten times as high as the
    others. `traces` holds the values of one curve each.
    """
    ranges = [found for parts in traces if (found := _middle(parts)) is not None]
    if not ranges:
        return None
    low = min(low for low, _ in ranges)
    highs = sorted(high for _, high in ranges)
    # The middle one of all curves: a single one that
    # diverged does not say how high the chart is.
    usual = highs[(len(highs) - 1) // 2]
    high = max(high for high in highs if high - low <= 10 * max(usual - low, 1e-12))
    return limits([np.array([low, high])])


def _middle(parts: list[Floats]) -> tuple[float, float] | None:
    values = np.concatenate(parts) if parts else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    first, third = np.percentile(values, (25, 75))
    reach = 3 * (third - first)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    return float(inside.min()), float(inside.max())


def labels(values: list[float]) -> list[str]:
    """The numbers of an axis, in as many digits as tell them apart."""
    texts = [short(value) for value in values]
    return texts if len(set(texts)) == len(texts) else [f"{value:.7g}" for value in values]


def short(value: float) -> str:
    """A number in at most seven characters."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    size = abs(value)
    if size >= 1e9:
        return f"{value:.2g}"
    for unit, name in ((1e6, "M"), (1e4, "k")):
        if size >= unit:
            scaled = value / (1e3 if name == "k" else unit)
            return f"{scaled:.4g}{name}"
    if size and size < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.4g}"


def value_at(x: Floats, y: Floats, position: float) -> float | None:
    """The value of the point nearest to `position` (None where the line is empty)."""
    if len(x) == 0:
        return None
    right = int(np.searchsorted(x, position))
    near = min(
        (index for index in (right - 1, right) if 0 <= index < len(x)),
        key=lambda i: abs(x[i] - position),
    )
    return float(y[near])
