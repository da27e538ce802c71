"""Lines into braille cells (2 x 4 dots each), as arrays.

The canvas widget comes from textual-hires-canvas, which draws line by line in Python. Own code
only fills the cells: curves are drawn anew at every key, and whole arrays at once cost far less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dgcctl.tui.state.series import Floats, Spans

_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]], dtype=np.uint8)
# Which of six dot columns a line shows: tells overlaid runs apart where there is no colour.
DASHES = (
    (1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 0, 0),
    (1, 0, 1, 0, 1, 0),
    (1, 1, 1, 0, 1, 0),
    (1, 0, 0, 1, 0, 0),
)


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
    pad = (high - low) * 0.04 or abs(low) * 0.1 or 1.0
    return low - pad, high + pad


def ticks(low: float, high: float, count: int) -> list[float]:
    """At most about `count` round numbers in [low, high]."""
    if count < 1 or not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [
        round((first + index) * step, 12)
        for index in range(int((high - first * step) / step + 1e-9) + 1)
    ]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten between two logarithms, or round numbers where the range holds fewer than two
    of them.
    """
    powers = [float(power) for power in range(math.ceil(low), math.floor(high) + 1)]
    if len(powers) >= 2:
        return powers[:: max(1, -(-len(powers) // max(1, count)))]
    return [math.log10(value) for value in ticks(10**low, 10**high, count) if value > 0]


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
