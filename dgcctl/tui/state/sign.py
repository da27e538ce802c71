"""The letter and the colour of a run: its own for good, in its row, in every chart and legend.

Runs are numbered in the order in which they began, those that come later go on from there; the
numbers are remembered with the view, so that a run that is deleted takes no other's letter away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dgcctl.core.runs.listing import Run

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Sign:
    """`A` to `Z`, then `A1` to `Z1`, ...; `colour` counts through the palette's series."""

    letter: str
    colour: int


def sign_of(number: int) -> Sign:
    again, at = divmod(number, len(LETTERS))
    return Sign(LETTERS[at] + (str(again) if again else ""), number)


def number_new(signs: dict[str, int], runs: Iterable[Run]) -> None:
    """Give a number to each run that has none."""
    new = [run for run in runs if run.id not in signs]
    following = max(signs.values(), default=-1) + 1
    for number, run in enumerate(sorted(new, key=_began), following):
        signs[run.id] = number


def _began(run: Run) -> tuple[float, str]:
    return run.status.started, run.id
