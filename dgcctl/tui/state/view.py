"""How the user looks at a runs folder: filter, marks, pins, axes. Remembered per folder, lost
without harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from dgc.errors import DgcError
from dgc.run.files import atomic_write, read_bounded
from dgc.talk import shown

Axis = Literal["step", "epoch", "time"]
AXES: tuple[Axis, ...] = get_args(Axis)
PANELS = (0, 1, 2, 4, 6, 9, 12)  # charts a page; 0: as many as have room
SMOOTHING = (0.0, 0.6, 0.8, 0.9, 0.95, 0.99)
LIGHT = 1  # how much is smoothed unasked
SORTS = ("age", "state", "recipe", "error", "progress", "lr", "seed", "speed")


@dataclass
class View:
    filter: str = ""
    marks: list[str] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    show_hidden: bool = False
    alone: bool = False  # a run's charts without the marked ones
    clip: bool = False
    panels: int = 0
    signs: dict[str, int] = field(default_factory=dict)  # the number of each run, for good
    metrics: list[str] = field(default_factory=list)
    theme: str = ""
    smoothing: int = LIGHT
    axis: Axis = "step"
    log: bool = False
    grouped: bool = False
    sort: str = "age"
    reverse: bool = False
    drawer: str = ""

    @property
    def weight(self) -> float:
        return SMOOTHING[self.smoothing]

    def smoother(self, by: int) -> None:
        self.smoothing = 0 if by == 0 else max(0, min(len(SMOOTHING) - 1, self.smoothing + by))

    def next_panels(self) -> None:
        self.panels = PANELS[(PANELS.index(self.panels) + 1) % len(PANELS)]

    def next_axis(self) -> None:
        self.axis = AXES[(AXES.index(self.axis) + 1) % len(AXES)]

    def next_sort(self) -> None:
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]


def toggle(values: list[str], value: str) -> None:
    """Put in or take out."""
    if value in values:
        values.remove(value)
    else:
        values.append(value)


class ViewStore:
    """The remembered view of one runs folder (nowhere: nothing is remembered)."""

    def __init__(self, state_dir: Path | None, runs_dir: Path) -> None:
        # by a digest: a path may be longer than a name of a file, and holds slashes
        name = hashlib.sha256(os.fsencode(runs_dir.resolve())).hexdigest()[:16]
        self.path = state_dir / f"{name}.json" if state_dir else None

    def load(self) -> View:
        """The view as it was left; what cannot be read, or is of an unknown kind, takes its
        default.
        """
        with contextlib.suppress(OSError, DgcError, orjson.JSONDecodeError, AttributeError):
            if self.path is not None:
                return _checked(orjson.loads(read_bounded(self.path)).items())
        return View()

    def save(self, view: View) -> None:
        if self.path is not None:
            with contextlib.suppress(OSError, DgcError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self.path, orjson.dumps(asdict(view)), point="view")


def _checked(items: Any) -> View:
    view = View()
    for key, value in items:
        # Field by field: a file of another release keeps what it has in common with this one, and
        # what somebody wrote into it by hand cannot be of a type that a screen does not expect.
        if (
            key in View.__dataclass_fields__
            and type(value) is type(getattr(view, key))
            and _allowed(key, value)
        ):
            setattr(view, key, shown(value) if isinstance(value, str) else value)
    return view


def _allowed(key: str, value: Any) -> bool:
    if key == "signs":
        return all(type(number) is int and number >= 0 for number in value.values())
    if isinstance(value, list):
        return all(isinstance(entry, str) for entry in value)
    choices: dict[str, Sequence[Any]] = {
        "axis": AXES,
        "sort": SORTS,
        "panels": PANELS,
        "smoothing": range(len(SMOOTHING)),
    }
    return key not in choices or value in choices[key]
