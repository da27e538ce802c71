"""What a chart is given to draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dgcctl.tui import raster
from dgcctl.tui.raster import Floats


@dataclass(frozen=True, eq=False)
class Trace:
    """One line. `label` is its run's letter; `faint` draws it behind (the raw values under a
    smoothed line). `recorded`: the values that are told in words, where the line is a smoothed one.
    """

    label: str
    x: Floats
    y: Floats
    colour: int = 0
    faint: bool = False
    spot: bool = False  # a point of a scatter: a sign and its letter
    recorded: Floats | None = None


@dataclass(frozen=True, eq=False)
class ChartSpec:
    """What a chart shows. Two specs of the same `key` look the same, so the second is not drawn."""

    key: tuple[Any, ...]
    title: str
    traces: list[Trace] = field(default_factory=list)
    window: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    cursor: float | None = None
    target: float | None = None
    clip: bool = False  # without what lies far outside
    x_text: Callable[[float], str] = raster.short
    x_ticks: Callable[[float, float, int], list[tuple[float, str]]] | None = None
    empty: str = "no values yet"


EMPTY = ChartSpec(("empty",), "", empty="")
