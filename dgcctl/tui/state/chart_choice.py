"""Which charts a run has, and which of them are on the page that is looked at."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from dgc.run.status import State
from dgcctl.core.runs.listing import Run
from dgcctl.tui.state import curves, machine
from dgcctl.tui.state.store import Store


@dataclass(frozen=True)
class Page:
    """The metrics whose charts are shown, out of how many, and where they stand among them."""

    shown: tuple[str, ...]
    first: int
    total: int
    number: int = 0

    @property
    def told(self) -> str:
        """`charts 1-4 of 14: [ ]`; empty where all are in sight."""
        if self.total <= len(self.shown):
            return ""
        return f"charts {self.first + 1}-{self.first + len(self.shown)} of {self.total}: [ ]  "


def page(names: Sequence[str], number: int, room: int) -> Page:
    """The page of this number, or the last one."""
    room = max(1, room)
    # the number may be from before charts went or the screen shrank
    number = max(0, min(number, (len(names) - 1) // room))
    first = number * room
    return Page(tuple(names[first : first + room]), first, len(names), number)


def names_of(store: Store, run: Run, *, usage: bool, text: str) -> list[str]:
    """The metrics that have charts: pinned ones first, then those that everyone looks at, then the
    others in the order of the log; of the machine alone, or those that the text leaves.
    """
    logged = store.feed(run.id).names()
    known = set(logged)
    seen_here = [
        name
        for name in machine.TITLES
        if (run.state == State.RUNNING and name != "machine.gpu")
        or len(store.machine(run.id).points(name))
    ]
    if usage:
        found = [name for name in machine.CHARTS if name in known or name in seen_here]
        return [name for name in found if _says_something(store, run, name)]
    # a script's run that logged something has charts of what it logged, and no empty ones of ours
    training = "model.name" in run.recipe or not logged
    usual = [name for name in curves.default_metrics() if name in known or training]
    everything = dict.fromkeys([*store.view.metrics, *usual, *logged])
    # a filter may name what the machine does; unasked it stays out of the way
    if text:
        everything = dict.fromkeys([*everything, *seen_here])
    return [name for name in everything if matches(name, text)]


def _says_something(store: Store, run: Run, name: str) -> bool:
    """Memory of a GPU that there is not stays 0."""
    return name != "perf.gpu_memory" or bool(store.feed(run.id).last(name))


def matches(name: str, text: str) -> bool:
    """Whether a metric's name or title holds each word; `a|b` is one of them, `!a` without it, and
    with `*` a word is the whole name.
    """
    told = (name.lower(), curves.title_of(name).lower())
    return all(_holds(told, word) for word in text.lower().split())


def _holds(told: Sequence[str], word: str) -> bool:
    if word.startswith("!"):
        # `!` alone is a word that is not typed to its end
        return len(word) == 1 or not _holds(told, word[1:])
    parts = [part for part in word.split("|") if part]
    return not parts or any(
        fnmatch.fnmatchcase(text, part) if "*" in part else part in text
        for part in parts
        for text in told
    )
