"""A gate map as numbers and words: which share of its input channels each head chooses, and what
that costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dgc import schedule
from dgc.errors import DgcError
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgcctl.tui.raster import Floats

FIGURES = {"active_share": "active share", "entropy": "entropy", "most_used": "most used"}
SHADES = " ░▒▓█"


@dataclass(frozen=True)
class Head:
    """One head of one layer. Shares lie in [0, 1]; `most` and `least` are (channel, share of the
    samples).
    """

    active_share: float
    entropy: float
    most: tuple[tuple[int, float], ...]
    least: tuple[tuple[int, float], ...]

    def figure(self, name: str) -> float:
        if name == "most_used":
            return self.most[0][1] if self.most else 0.0
        return float(getattr(self, name))


@dataclass(frozen=True)
class Layer:
    name: str
    in_channels: int
    n_inactive: int
    heads: tuple[Head, ...]
    dense: float
    promised: float
    executed: float


@dataclass(frozen=True)
class GateMap:
    epoch: int
    step: int
    layers: tuple[Layer, ...]


def read(run: RunDir, file: str) -> GateMap | str:
    """A gate map of a run, or why it cannot be shown."""
    path = run.path / file
    try:
        # the name comes from the log: a record is data
        if not path.resolve().is_relative_to(run.path.resolve()):
            return f"{file}: lies outside the run"
        document = read_json(path)
        layers = tuple(_layer(row) for row in document["layers"])
        return GateMap(int(document["epoch"]), int(document["step"]), layers)
    except (OSError, DgcError) as error:
        return f"{path.name}: {error}"
    except (KeyError, TypeError, ValueError, IndexError) as error:
        return f"{path.name}: not a gate map ({type(error).__name__} at {error})"


def _layer(row: dict[str, Any]) -> Layer:
    costs = (float(row.get(f"{kind}_macs") or 0) for kind in ("dense", "promised", "executed"))
    heads = tuple(_head(head) for head in row["heads"])
    return Layer(str(row["name"]), int(row["in_channels"]), int(row["n_inactive"]), heads, *costs)


def _head(head: dict[str, Any]) -> Head:
    most, least = (
        tuple((int(c), float(share)) for c, share in head[name]) for name in ("most", "least")
    )
    return Head(float(head["active_share"]), float(head["entropy"]), most, least)


def shade(value: float, width: int = 7) -> str:
    """A value in [0, 1] as a number and a shaded bar, so that it reads without colour: ` 63 ▓▓`."""
    # NaN is unequal to itself
    bounded = min(1.0, max(0.0, value)) if value == value else 0.0
    room = max(1, width - 5)
    dark = SHADES[max(1, round(bounded * (len(SHADES) - 1)))]
    return f"{bounded * 100:4.0f} {dark * (room if room < 4 else round(bounded * room))}"


def short_names(names: list[str]) -> list[str]:
    """Names without the dotted parts that all of them begin or end with, and without the `dense` of
    `denseblock`.
    """
    parts = [name.split(".") for name in names]
    if len(parts) < 2:
        return names
    first, last = _shared(parts), _shared([part[::-1] for part in parts])
    # a name of which nothing would be left stays whole
    kept = [".".join(part[first : len(part) - last]) or ".".join(part) for part in parts]
    return [name.replace("denseblock_", "block_").replace("denselayer_", "layer_") for name in kept]


def _shared(parts: list[list[str]]) -> int:
    """How many leading parts are the same in all."""
    return next(
        (i for i, same in enumerate(zip(*parts, strict=False)) if len(set(same)) > 1),
        min(map(len, parts)),
    )


def pruning_curve(gate_factor: float, points: int = 200) -> tuple[Floats, Floats]:
    """Progress and the share of input channels that every head leaves out there (dgc.schedule on
    1,000 channels).
    """
    progress = np.linspace(0.0, 1.0, points)
    shares = [schedule.inactive_channels(p, 1000, gate_factor) / 10 for p in progress.tolist()]
    return progress * 100, np.array(shares)
