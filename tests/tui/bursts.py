"""Key sequences for all screens, typed slowly or in one burst, and the state that they lead to."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from dgcctl.tui.app import DashApp
from dgcctl.tui.screens import labelled
from dgcctl.tui.screens.base import DashScreen
from dgcctl.tui.screens.question import Question
from dgcctl.tui.state import comparison
from dgcctl.tui.state.feed import Follower
from dgcctl.tui.state.poller import Catalogue
from dgcctl.tui.widgets.virtual_table import Listing
from tests.tui import frames

APART = 0.05
DELAYS = (0.0, 0.05, 0.2)
SIZES = ((80, 24), (132, 38), (100, 12))
_MOVES = ("up", "down", "down", "j", "k", "pageup", "pagedown", "home", "end", "tab", "shift+tab")
_KEYS = (
    *_MOVES, *_MOVES, "enter", "enter", "escape", "escape", "space", *"/pdglvosxyimwzZftn?e[]+-0cr", *"hHOTNuboFb",
    "left", "right", "shift+left", "shift+right", "backspace", "q",
)  # fmt: skip
_WORDS = (
    "sy",
    "q",
    "state=done",
    "demo",
    "gate_l1",
    "error",
    "lr>",
    "no such",
    "step",
    "t",
    "kk",
    "e",
    "loss|lr !step",
    "paper -draft",
)
_COMMANDS = ("log y", "gates", "stop", "theme", "quit", "nothing of this", "help", "mark")


class Late(frames.Ticks):
    """A clock on which reading takes time: a thread that reads waits for it to be moved on."""

    def __init__(self, delay: float) -> None:
        super().__init__()
        self.delay = delay
        self._moved = threading.Condition()
        self._over = False

    def advance(self, seconds: float) -> None:
        with self._moved:
            super().advance(seconds)
            self._moved.notify_all()

    def release(self) -> None:
        """Reading takes no time any more."""
        with self._moved:
            self._over = True
            self._moved.notify_all()

    def read(self) -> None:
        with self._moved:
            end = self.now + self.delay
            self._moved.wait_for(lambda: self._over or self.now >= end)


@contextmanager
def reading_is(late: Late) -> Iterator[None]:
    """The list of runs, each log, the records to compare and the recipes come late, the first time."""

    def slowed(work: Callable[..., Any]) -> Callable[..., Any]:
        seen: set[int] = set()

        def slow(*arguments: Any) -> Any:
            if id(arguments[0]) not in seen:
                seen.add(id(arguments[0]))
                late.read()
            return work(*arguments)

        return slow

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Catalogue, "look", slowed(Catalogue.look))
        patch.setattr(Follower, "poll", slowed(Follower.poll))
        patch.setattr(comparison, "read", slowed(comparison.read))
        yield


@dataclass(frozen=True)
class Case:
    """What is typed, in which terminal, and how late what is read comes."""

    keys: tuple[str, ...]
    size: tuple[int, int]
    delay: float
    opened: tuple[str, ...]

    @staticmethod
    def of(seed: int) -> Case:
        dice = random.Random(seed)
        keys: list[str] = []
        while len(keys) < 12:
            keys += _phrase(dice)
        opened = dice.choice(((), (), (), ("aaa001",), ("fff001", "bbb001")))
        return Case(tuple(keys), dice.choice(SIZES), DELAYS[seed % len(DELAYS)], opened)


def _phrase(dice: random.Random) -> Sequence[str]:
    match dice.randrange(14):
        case 0 | 1:
            return (
                "/",
                *dice.choice(_WORDS),
                *dice.choice(((), ("enter",), ("enter", "enter"), ("escape",))),
            )
        case 2:
            return (
                "ctrl+p",
                *dice.choice(_COMMANDS),
                *dice.choice((("enter",), ("down", "enter"), ("escape",))),
            )
        case 3:
            return ("space", "space", "d", *dice.choice(((), ("x",), ("x", "x"))))
        case 12:
            return (dice.choice("TN"), *dice.choice(_WORDS), dice.choice(("enter", "escape")))
        case 13:
            return (
                dice.choice(("u", "]", "b", "h")),
                *dice.choice((("f",), ("]", "f"), ("h", "H"))),
            )
        case 4 if dice.random() < 0.2:
            return (dice.choice("sq"),)
    return (dice.choice([key for key in _KEYS if key != "q"]),)


async def end_state(runs: Path, case: Case, *, slow: bool) -> dict[str, Any]:
    """Where the keys lead: up to the first question, or to the end."""
    late = Late(case.delay)
    exported: list[str] = []
    with reading_is(late), pytest.MonkeyPatch.context() as patch:
        # written down, not done: both sessions look at the same runs
        patch.setattr(
            labelled, "give", lambda run, *said: exported.append(f"{run.id} {said}") or "kept"
        )
        patch.setattr(DashApp, "_write", lambda self, taken: exported.append(_sheet(taken)))
        dash = frames.app(
            runs, open=case.opened, tick=late, recipes=lambda: (late.read(), frames.RECIPES)[1]
        )
        try:
            async with dash.run_test(size=case.size) as pilot:
                if slow:  # a burst is typed before the list is there
                    late.advance(case.delay)
                    await frames.until(pilot, lambda: dash.store.listed)
                await _type(pilot, case.keys, late, slow=slow)
                late.release()
                await frames.settled(pilot)
                state = _state(dash)
        finally:
            late.release()
    return {**state, "exported": exported}


def _sheet(taken: Any) -> str:
    head, rows = taken.table
    return f"{taken.name} {list(head)} {[list(row) for row in rows]}"


async def _type(pilot: Pilot[None], keys: Sequence[str], late: Late, *, slow: bool) -> None:
    dash = pilot.app
    assert isinstance(dash, DashApp)
    for key in keys:
        if slow and (isinstance(dash.screen, Question) or dash.return_code is not None):
            return
        frames.type_key(dash, key)
        if slow:
            await frames.heard(pilot)
            late.advance(APART)


def _state(dash: DashApp) -> dict[str, Any]:
    """All that a user could tell apart; of a session that has ended, what it leaves."""
    if dash.return_code is not None:
        # letters of runs follow from the runs, not from keys; who left before they were read has none
        return {"ended": dash.return_code, "view": {**asdict(dash.store.view), "signs": {}}}
    for screen in dash.screen_stack:  # one that lies below looks when it comes back
        if isinstance(screen, DashScreen) and screen.ready:
            screen.show_now()
    asked = isinstance(dash.screen, Question)
    return {
        "view": asdict(dash.store.view),
        "screens": [_screen(screen) for screen in dash.screen_stack],
        "frame": [] if asked else frames.lines(dash),
        "focus": "" if asked or dash.focused is None else dash.focused.id,
    }


def _screen(screen: Any) -> tuple[Any, ...]:
    known = (
        "run_id", "run_ids", "_window", "_cursor", "_alone", "_section", "_figure", "_chosen", "_head", "_title",
        "_text", "_usage", "_page",
    )  # fmt: skip
    lists = [
        (found.id, found.current, found.cursor, len(found.rows))
        for found in screen.query(Listing)
        if found.display  # a hidden table is filled when it is shown
    ]
    asked = isinstance(screen, Question)
    texts = (
        []
        if asked
        else [(found.id, found.value, found.has_class("on")) for found in screen.query(Input)]
    )
    own = {name: value for name in known if not callable(value := getattr(screen, name, None))}
    return (type(screen).__name__, lists, texts, own)
