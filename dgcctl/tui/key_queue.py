"""Keys are heard one after the other: each only when all that the one before caused has happened.

Textual hands a key to what has the focus at that moment, and moves the focus, builds screens and
applies searches a little later. Keys that come in one burst (a macro, a paste, a slow line) would
then be heard by the wrong part: of `/sy` the search would get nothing, and `s` and `y` would stop
a training. So every key goes through this one queue:

- a key waits until the one before has done its work: focus moved, screen built, search applied;
- a key that needs what is still being read (`Needs`) waits for it, and those behind it wait too;
- a question hears no key that was pressed before it had been seen for a moment (`Question`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from textual.app import App
from textual.events import Key, Paste
from textual.message_pump import MessagePump
from textual.widget import Widget
from textual.widgets import Input

from dgcctl.tui.screens.question import Question

Typed = Key | Paste
AT_ONCE = "ctrl+q"  # leaves whatever happens, so that a disk that does not answer holds nobody here
LOOK = 0.01  # seconds between two looks at whether what a key needs has been read
PATIENCE = 100  # looks after which the next key is heard though something never came to rest


class KeyQueue:
    """The queue between terminal and screens. `deliver` hands a key to what has the focus."""

    def __init__(
        self,
        app: App[Any],
        deliver: Callable[[Typed], Awaitable[None]],
        *,
        can_hear: Callable[[Typed], bool],
        look_now: Callable[[], None],
        tick: Callable[[], float],
    ) -> None:
        """`can_hear` says whether what a key needs is known, `look_now` shows what has come in,
        `tick` is the clock by which keys and questions are told apart.
        """
        self._app, self._deliver = app, deliver
        self._can_hear, self._look_now, self._tick = can_hear, look_now, tick
        self._typed: deque[tuple[Typed, float]] = deque()
        self._came = asyncio.Event()
        self._busy = False
        self.waits = False  # whether the first key waits for something that is being read

    @property
    def idle(self) -> bool:
        """Whether all that was typed has been heard."""
        return not self._typed and not self._busy

    def take(self, event: Typed) -> None:
        # the moment of the press, not of the hearing: a key that waited here for a slow disk was
        # still pressed before a question was there
        self._typed.append((event, self._tick()))
        self._came.set()

    async def run(self) -> None:
        """For as long as the app lives."""
        while True:
            await self._came.wait()
            self._came.clear()
            while self._typed:
                # said before the key leaves the queue: in between, nobody may take this for idle
                self._busy = True
                await self._hear(*self._typed.popleft())
            self._busy = False

    async def _hear(self, event: Typed, at: float) -> None:
        await self._needed(event)
        # only now, for the key before may have opened a question
        screen = self._app.screen
        if isinstance(screen, Question) and screen.deaf(event, at):
            return
        await self._deliver(event)
        await self._done()

    async def _needed(self, event: Typed) -> None:
        """Wait for what the key needs; what has been read by then is shown before it is heard."""
        # asked again and again: what is needed comes from the poller's thread, from workers and
        # from screens that come and go, and one look costs less than a signal from each of them
        while not self._can_hear(event):
            self.waits = True
            await asyncio.sleep(LOOK)
        self.waits = False
        self._look_now()
        await self._done()

    async def _done(self) -> None:
        """Wait until all messages have been heard, the focus rests and the screen is laid out."""
        # bounded: a part that never rests (a timer that moves lines) must not lock the keyboard
        for _ in range(PATIENCE):
            if await self._quiet() and not self._unsettled():
                return
            await asyncio.sleep(LOOK / 2 if self._unsettled() else 0)

    async def _quiet(self) -> bool:
        """Let every part hear what it has been told; whether nothing came of it."""
        # Empty queues are not enough: the last message heard may have opened a screen or moved the
        # focus, and their messages come only after that. So a round counts as quiet where it also
        # left screens and focus as they were.
        before = self._state()
        parts = self._parts()
        await _heard_by(parts)
        return before == self._state() and not any(part.message_queue_size for part in parts)

    def _state(self) -> tuple[object, ...]:
        app = self._app
        return (*map(id, app.screen_stack), id(app.focused), app.is_mounted)

    def _unsettled(self) -> bool:
        """Whether lines will move (a page down depends on them), or a question's worker works."""
        screen = self._app.screen
        working = any(w.node is screen and not w.is_finished for w in self._app.workers)
        # a letter of a text needs no layout: what it finds moves lines, and typing would stutter
        typing = isinstance(self._app.focused, Input)
        return working or (not typing and bool(getattr(screen, "_layout_required", False)))

    def _parts(self) -> Sequence[MessagePump]:
        screen = self._app.screen
        return [*screen.query(Widget), screen, self._app]


async def _heard_by(parts: Sequence[MessagePump]) -> None:
    """Wait until each has come to the end of what it had to hear; one that has ended is passed
    over.
    """
    # A call at the end of each part's queue: when it is made, all that stood before it is done.
    # A part that takes no calls any more (it is closing) is not waited for.
    left = set(parts)
    for part in parts:
        if not part.call_later(lambda part=part: left.discard(part)):
            left.discard(part)
    for _ in range(PATIENCE):
        # most are done within some turns of the loop; only then is it worth to wait a moment
        for _ in range(20):
            if not left:
                return
            await asyncio.sleep(0)
        await asyncio.sleep(LOOK / 10)
        # a part that ended after it was told will never make the call
        left -= {part for part in left if not part.is_running and not part.is_attached}
