"""What all screens share: a head line, the keys below, and being told when something changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, cast

from textual.events import Event, Mount
from textual.screen import Screen

from dgcctl.core.runs.listing import Run
from dgcctl.tui import actions, keys
from dgcctl.tui.host import Host
from dgcctl.tui.keys import Key, Needs
from dgcctl.tui.widgets.bar import Bar, Lines
from dgcctl.tui.widgets.keyline import KeyLine
from dgcctl.tui.widgets.virtual_table import Cell

WIDE = 110
LEAST = (40, 10)  # columns and lines; with fewer there is no room for anything of use
# the head and the rows of a CSV file
ExportTable = tuple[Sequence[str], Iterable[Sequence[object]]]


class DashScreen(Screen[None]):
    """`look` shows what is known now; it is called on news, on return, and after a key changed the
    view.
    """

    name_for_files: ClassVar[str] = "screen"
    own_keys: ClassVar[tuple[Key, ...]] = ()
    DEFAULT_CSS = """
    DashScreen { layers: default above; }
    DashScreen #too-small { layer: above; dock: top; width: 100%; height: 100%; display: none; }
    DashScreen.-small #too-small { display: block; background: $background; }
    """
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012  Textual's own declaration

    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012  Textual's own declaration

    @property
    def host(self) -> Host:
        """The app, as far as a screen knows it."""
        return cast(Host, self.app)

    @property
    def wide(self) -> bool:
        """Whether there is room for whole names (the class -wide says the same to the style
        sheets).
        """
        return self.app.size.width >= WIDE

    @property
    def ready(self) -> bool:
        """Whether its widgets are there: a screen on its way in or out is on the stack without
        them.
        """
        return bool(self.is_mounted and self.is_attached and self.query(Bar))

    @property
    def loaded(self) -> bool:
        """Whether it has read the records that it reads itself."""
        return True

    def known(self) -> Needs:
        """How much is known here; a key that needs more is heard when it is."""
        if not self.loaded:
            return Needs.PLACE
        return Needs.ALL if self.host.all_followed(self.shown_runs()) else Needs.ROWS

    async def on_event(self, event: Event) -> None:
        # who leaves at once (`q` while the screen opens) is gone before its widgets are there
        if not isinstance(event, Mount) or self.query(Bar):
            await super().on_event(event)

    def on_resize(self) -> None:
        self.look()

    def look(self) -> None:
        """Show what is known now, and what can be done."""
        if self.ready:
            self._tell_size()
            self.show_now()
            self.tell_keys()
            self.host.screen_changed()

    def _tell_size(self) -> None:
        """Where nothing of use has room, say so over it; what lies below keeps its place."""
        width, height = self.app.size
        small = width < LEAST[0] or height < LEAST[1]
        self.set_class(small, "-small")
        if small:
            told = (f"too small: {width}x{height}", f"needs {LEAST[0]}x{LEAST[1]}", "q quits")
            if not self.query("#too-small"):
                self.mount(Lines(id="too-small"))
            self.query_one("#too-small", Lines).show(*[[(line, "warn")] for line in told])

    def show_now(self) -> None:
        """What is known, on this screen."""

    def tell_keys(self) -> None:
        run = self.host.store.runs.get(self.subject() or "")
        own = [key for key in self.own_keys if self._does_something(key, run)]
        first = [key for key in own if key.shown]
        rest = [key for key in own if not key.shown]
        # as many as have room, those first that one looks for
        told = [*first, keys.NEW_RUN, *rest, *keys.LAST]
        self.query_one(KeyLine).tell(
            map(self.host.written, told), map(self.host.written, keys.ALWAYS)
        )

    def _does_something(self, key: Key, run: Run | None) -> bool:
        if key.id in keys.ACTS and self.host.options.readonly:
            return False
        return key not in keys.ACTING or not actions.refusal(run, key.id)

    def subject(self) -> str | None:
        """The run that stop, checkpoint and resume are about."""
        return None

    def shown_runs(self) -> Sequence[str]:
        """The runs whose logs this screen needs."""
        return ()

    def export_table(self) -> ExportTable:
        """What is on screen, as a table. The rows may be made later, in another thread: from what
        is known now.
        """
        return (), ()

    def redraw(self) -> None:
        """The theme changed: draw everything again."""
        self.refresh(recompose=False)
        for widget in self.query("*"):
            widget.refresh()

    def on_mount(self) -> None:
        self.look()

    def on_screen_resume(self) -> None:
        self.host.screen_changed()
        self.look()

    def action_back(self) -> None:
        if len(self.app.screen_stack) > 1 and self.app.screen is self:
            self.app.pop_screen()


def head(title: str, *cells: Cell) -> list[Cell]:
    return [(f" {title} ", "title"), " ", *cells]


class OneRunScreen(DashScreen):
    """A screen about one run; its charts and lists stand on the logs."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def subject(self) -> str | None:
        return self.run_id

    def known(self) -> Needs:
        if not self.host.store.listed:
            return Needs.PLACE
        return Needs.ALL if self.host.all_followed(self.shown_runs()) else Needs.RUNS
