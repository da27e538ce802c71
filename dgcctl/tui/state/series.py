"""Columns of numbers that grow, and what a chart does to them: smooth, reduce to one span a column.
Numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class GrowingArray:
    """A float64 array that grows in amortised constant time and can be cut back."""

    def __init__(self) -> None:
        self._data: Floats = np.empty(8)
        self.size = 0

    @property
    def view(self) -> Floats:
        return self._data[: self.size]

    def extend(self, values: Any) -> None:
        needed = self.size + len(values)
        # doubled: as many copies as there are digits, not as there are points
        if needed > len(self._data):
            grown = np.empty(max(needed, 2 * len(self._data)))
            grown[: self.size] = self.view
            self._data = grown
        self._data[self.size : needed] = values
        self.size = needed

    def truncate(self, size: int) -> None:
        self.size = min(self.size, size)


@dataclass(frozen=True)
class Points:
    """One metric of one run: equally long columns; `value` may hold NaN."""

    step: Floats
    seconds: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True)
class Spans:
    """A line reduced to dot columns: in column `at[i]` it reaches from `low[i]` to `high[i]`."""

    at: Ints
    low: Floats
    high: Floats
    broken: Ints  # columns that hold a value that is no number


def smooth(values: Floats, weight: float) -> Floats:
    """Exponential moving average with bias correction (as TensorBoard draws it); NaN is stepped
    over.

    `weight` in [0, 1): 0 returns the values as they are. Vectorised in blocks, so that 100,000
    points take ~2 ms.
    """
    if weight <= 0 or len(values) == 0:
        return values
    finite = np.isfinite(values)
    sums = _decayed_sums(np.where(finite, values, 0.0), weight)
    counts = (
        _decayed_sums(finite.astype(np.float64), weight)
        if not finite.all()
        else _full_counts(len(values), weight)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        # before the first number there is nothing to average
        return np.where(finite, sums / counts, np.nan)


def _full_counts(length: int, weight: float) -> Floats:
    """The same for all ones: (1 - weight ** n) / (1 - weight), which soon is its limit."""
    counts = np.full(length, 1 / (1 - weight))
    # From there on weight ** n is below the last digit of a float64.
    early = min(length, int(-17 / math.log10(weight)) + 1)
    counts[:early] = (1 - weight ** np.arange(1.0, early + 1)) / (1 - weight)
    return counts


def _decayed_sums(values: Floats, weight: float) -> Floats:
    """s[i] = values[i] + weight * s[i - 1]: cumulative sums of scaled values, in blocks too short
    to overflow.

    (A product with a triangular matrix would be as short, but wakes the threads of BLAS: 20 ms
    where this takes 2.)
    """
    # Within a block values are divided by weight ** i, down to 1e-6: enough to gain speed, and
    # far from where digits are lost.
    block = max(4, min(512, int(-6 / math.log10(weight))))
    blocks = -(-len(values) // block)
    padded = np.zeros(blocks * block)
    padded[: len(values)] = values
    scale = weight ** np.arange(block)
    sums = np.cumsum(padded.reshape(blocks, block) / scale, axis=1) * scale
    # What flows from block to block is one number each: a loop in Python over some hundred, where
    # a loop over the points would be a hundred thousand.
    ends, fade, carry = sums[:, -1].tolist(), weight**block, [0.0]
    for end in ends[:-1]:
        carry.append(end + fade * carry[-1])
    sums += np.array(carry)[:, None] * (scale * weight)
    return np.asarray(sums.reshape(-1)[: len(values)])


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
