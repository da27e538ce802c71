"""The dashboard application: it owns the store and the poller, and it alone knows all screens."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Thread
from typing import ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.dom import DOMNode
from textual.events import Event, Key, Paste
from textual.filter import LineFilter
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.widgets import Input

from dgc.errors import DgcError
from dgc.run.paths import RunDir
from dgc.talk import shown
from dgcctl.core.runs import find
from dgcctl.tui import actions, collector, frame_export, keys, palette, toasts, typed
from dgcctl.tui.confirmed_actions import ConfirmedActions
from dgcctl.tui.host import Host
from dgcctl.tui.key_queue import AT_ONCE, KeyQueue, Typed
from dgcctl.tui.keys import Needs
from dgcctl.tui.screens.base import DashScreen
from dgcctl.tui.screens.confirm_screen import Confirm
from dgcctl.tui.start_options import Options
from dgcctl.tui.state.alerts import AlertMonitor
from dgcctl.tui.state.feed import FeedBatch
from dgcctl.tui.state.poller import Catalogue, News, Poller
from dgcctl.tui.state.store import Store
from dgcctl.tui.state.view import ViewStore
from dgcctl.tui.suspend import guard_sigcont, leave_at_sigterm
from dgcctl.tui.widgets.keyline import ShownKey

FRAME = 0.05


class Arrived(Message):
    """News from the poller's thread."""

    def __init__(self, news: News) -> None:
        super().__init__()
        self.news = news


class DashApp(App[None]):
    """`dgcctl dash`."""

    TITLE = "dgcctl dash"
    CSS = """
    Toast { max-width: 90%; }
    Input { border: none; height: 1; padding: 0 1; background: $panel; }
    Input:focus { border: none; }
    """
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings(keys.EVERYWHERE),
        *keys.bindings(keys.ACTING),
    ]

    def __init__(self, options: Options) -> None:
        super().__init__()
        typed.mend_reading(self.driver_class)
        self.options = options
        self.clock = options.clock
        self.view_store = ViewStore(options.state_dir, options.runs_dir)
        self.store = Store(self.view_store.load())
        self.left = copy.deepcopy(self.store.view)  # as an earlier dashboard left it
        self.palette = palette.Palette(self._first_theme())
        self.own_keys = keys.load_keymap(options.keys_file)
        self.trainers = actions.Trainers()
        self.frames = 0
        self._opened = [find.find_run(name, options.runs_dir) for name in options.open]
        self._alerts = AlertMonitor()
        self._confirmed = ConfirmedActions(
            self, self.store, self.trainers, self._alerts, self._subject
        )
        self.hearing = KeyQueue(
            self,
            super().on_event,
            can_hear=self.can_hear,
            look_now=self.look_now,
            tick=options.tick,
        )
        self.pending = False
        self._watched: list[RunDir] = []
        self._waiting = bool(self._opened)
        self.poller = self._make_poller()
        self._thread = Thread(target=self.poller.run, name="poller", daemon=True)

    def _make_poller(self) -> Poller:
        options = self.options
        return Poller(
            Catalogue(options.runs_dir, self._opened),
            self._post_news,
            interval=options.interval,
            sample=options.sample,
            free_bytes=options.free_bytes,
        )

    def _first_theme(self) -> str:
        if self.no_color:
            return palette.PLAIN
        return self.options.theme or self.store.view.theme or palette.DARK

    # --- life -------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        for theme in palette.themes():
            self.register_theme(theme)
        self.theme = self.palette.theme
        self.set_keymap(self.own_keys)
        guard_sigcont(self._driver, self._redraw_all)
        self._thread.start()
        self.run_worker(self.hearing.run(), group="keys")
        self._first_screens()
        if not self.is_headless:  # else the process is not ours
            self.set_timer(collector.SETTLED, collector.settle)
            leave_at_sigterm(self.exit)

    def _first_screens(self) -> None:
        from dgcctl.tui.screens.runs_screen import RunsScreen

        self.push_screen(RunsScreen())
        for run in self._opened[1:]:
            if run.id not in self.store.view.marks:
                self.store.view.marks.append(run.id)
        if self._opened:
            self.call_later(self._open_when_listed, self._opened[0])

    def _open_when_listed(self, run: RunDir) -> None:
        self._waiting = run.id not in self.store.runs
        if not self._waiting:
            self.open_run(run.id)
        elif self.store.listed and not run.path.is_dir():
            self._waiting = False
            self.notify(f"{run.id}: its folder is gone", severity="warning")
        else:
            self.set_timer(FRAME, lambda: self._open_when_listed(run))

    def _redraw_all(self) -> None:
        """From a signal handler: something else may have written on the terminal."""
        asyncio.get_running_loop().call_soon(self.refresh)

    def on_unmount(self) -> None:
        self.poller.stop()
        self.view_store.save(self.store.view)

    def get_line_filters(self) -> Sequence[LineFilter]:
        return self.palette.filters(super().get_line_filters())

    # --- keys -------------------------------------------------------------------------------------

    async def on_event(self, event: Event) -> None:
        """What is typed goes through one queue (see key_queue.py)."""
        leaves = isinstance(event, Key) and event.key == AT_ONCE
        if isinstance(event, Key | Paste) and not event.is_forwarded and not leaves:
            if isinstance(event, Paste):
                event.text = shown(typed.one_line(event.text))
            # not handed on here: in a burst, the focus is not yet where the key is meant to go
            self.hearing.take(event)
        else:
            await super().on_event(event)

    def can_hear(self, event: Typed) -> bool:
        """Whether what this key needs is known: until then it waits, and those behind it too."""
        screen = self.screen
        if not isinstance(screen, DashScreen) or isinstance(event, Paste):
            return True
        # what is typed is text; enter acts on what it has found
        if isinstance(self.focused, Input):
            return event.key != "enter" or (screen.known() >= Needs.ROWS and not self._waiting)
        table = (*screen.own_keys, *keys.EVERYWHERE, *keys.ACTING, keys.PALETTE)
        needs = keys.needed(event.key, event.character, table, self.own_keys)
        return needs <= (Needs.NOTHING if self._waiting else screen.known())

    def all_followed(self, run_ids: Iterable[str]) -> bool:
        """Whether the logs of these runs have been read to their end."""
        there = [self.store.runs[key] for key in run_ids if key in self.store.runs]
        return all(self.store.feed(run.id).caught_up for run in there if run.dir.events.exists())

    # --- news -------------------------------------------------------------------------------------

    def _post_news(self, news: News) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may have ended between two looks
            self.post_message(Arrived(news))

    def on_arrived(self, message: Arrived) -> None:
        self.store.take(message.news)
        if isinstance(message.news, FeedBatch) and not message.news.caught_up:
            return
        for run_id, line in self.trainers.reap():
            if self._alerts.tells_end(run_id):
                self.notify(line, title=f"{run_id} failed", severity="error")
        for alert in self._alerts.look(self.store):
            self.notify(alert.text, title=alert.title, severity=alert.level, timeout=8)
        self.look_soon()

    @property
    def complete(self) -> bool:
        """Whether everything that the screen needs has been read and shown."""
        screen = self.front
        if (
            screen is None
            or not screen.loaded
            or not self.store.listed
            or self.pending
            or self._waiting
        ):
            return False
        return self.hearing.idle and self.all_followed(screen.shown_runs())

    def look_soon(self) -> None:
        """Let the screen look at what is known, at most once a frame."""
        if not self.pending:
            self.pending = True
            self.set_timer(FRAME, self._look)

    def look_now(self) -> None:
        """Show what has come in since the last look."""
        if self.pending:
            self._look()

    def _look(self) -> None:
        self.pending = False
        # none: the app is about to end
        asked = self.screen_stack[-1] if self.screen_stack else None
        if isinstance(asked, Confirm):
            asked.look_again()
        if self.front is not None and self.front.ready:
            self.front.look()

    @property
    def front(self) -> DashScreen | None:
        """The screen that is looked at, under a question if there is one. None: the app ends."""
        return next(
            (found for found in reversed(self.screen_stack) if isinstance(found, DashScreen)), None
        )

    def screen_changed(self) -> None:
        """Follow the logs that the screens in the stack need, forget the others."""
        wanted = [
            key
            for screen in self.screen_stack
            if isinstance(screen, DashScreen)
            for key in screen.shown_runs()
        ]
        there = self.store.dirs(wanted)
        if there != self._watched:
            self._watched = there
            self.poller.watch(there)

    # --- screens ----------------------------------------------------------------------------------

    def open_run(self, run_id: str, drawer: str = "") -> None:
        from dgcctl.tui.screens.run_screen import RunScreen

        self.push_screen(RunScreen(run_id, drawer))

    def open_gates(self, run_id: str) -> None:
        from dgcctl.tui.screens.gates_screen import GatesScreen

        self.push_screen(GatesScreen(run_id))

    def open_compare(self, run_ids: Sequence[str]) -> None:
        from dgcctl.tui.screens.compare_screen import CompareScreen

        self.push_screen(CompareScreen(run_ids))

    def action_recipes(self) -> None:
        from dgcctl.tui.screens.recipes_screen import RecipesScreen

        if not isinstance(self.screen, RecipesScreen):
            self.push_screen(RecipesScreen())

    def action_help(self) -> None:
        from dgcctl.tui.screens.help_screen import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen())

    def action_help_quit(self) -> None:
        """Ctrl-C: copies where something is chosen; else it may have been meant to end this."""
        self.notify(f"{self.written(keys.QUIT).text} leaves the dashboard; training goes on")

    def action_suspend_process(self) -> None:
        """Ctrl-Z: back to the shell, where `fg` brings the dashboard back."""
        if self._driver is not None and self._driver.can_suspend:
            super().action_suspend_process()
        else:
            self.notify("ctrl+z: nothing can be suspended here", severity="warning")

    def action_theme(self) -> None:
        """The next of dark, light, no colour."""
        at = palette.THEMES.index(self.palette.theme)
        self.use_theme(palette.THEMES[(at + 1) % len(palette.THEMES)])

    def use_theme(self, name: str) -> None:
        self.palette = palette.Palette(name)
        self.theme = self.store.view.theme = self.palette.theme
        for screen in self.screen_stack:
            if isinstance(screen, DashScreen):
                screen.redraw()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette holds what the keys hold."""
        own = [(key, screen) for key in screen.own_keys] if isinstance(screen, DashScreen) else []
        for key, owner in (*own, *((key, self) for key in keys.EVERYWHERE)):
            if self.check_action(key.name, ()) is not False:
                yield SystemCommand(
                    f"{key.label} ({self.written(key).text})",
                    key.help,
                    self._runner(key.action, owner),
                )

    def written(self, key: keys.Key) -> ShownKey:
        """A key as it is now (the user may have given it another place)."""
        pressed = self.own_keys.get(key.id, key.key)
        first = pressed.partition(",")[0]
        return ShownKey(first, shown(keys.shown_key(first)), key.label)

    def _runner(self, action: str, owner: DOMNode) -> Callable[[], object]:
        return lambda: self.call_later(self.run_action, action, owner)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Messages quote files: control characters are written out, nothing in them is markup."""
        title, told = toasts.fitted(title, message, *self.size)
        super().notify(told, title=title, severity=severity, timeout=timeout, markup=False)

    # --- acts -------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """--readonly: what changes a run is neither shown nor done."""
        return (
            False
            if action in keys.ACTS and self.options.readonly
            else super().check_action(action, parameters)
        )

    def action_export(self) -> None:
        if self.front is None:
            return
        self._write(frame_export.take(self, self.front, self.clock.now()))

    @work(thread=True)
    def _write(self, taken: frame_export.Taken) -> None:
        try:
            written = frame_export.write(taken, self.options.export_dir)
        except (OSError, DgcError) as error:
            self.notify(frame_export.why_not(error), severity="error")
        else:
            self.notify("\n".join(map(str, written)), title="exported")

    def action_stop(self) -> None:
        self._confirmed.stop()

    def action_checkpoint(self) -> None:
        self._confirmed.checkpoint()

    def action_resume(self) -> None:
        self._confirmed.resume()

    def _subject(self) -> str | None:
        """The run that an act would be about."""
        return self.front.subject() if self.front else None

    def start_recipe(self, recipe: Path, overrides: Sequence[str]) -> None:
        """Start a run of a recipe and open it. Raises RecipeError."""
        run = self.trainers.start(recipe, self.options.runs_dir, overrides)
        self.notify(run.id, title="started")
        self._open_when_listed(run)

    def _print_error_renderables(self) -> None:
        """A fault is one line of the command that opened us (`failure`), no page of our code."""
        self._exit_renderables.clear()

    @property
    def failure(self) -> Exception | None:
        """What ended the dashboard, where it did not end by itself."""
        return self._exception


_HOST: type[Host] = DashApp  # the type checker holds the app to what its screens need
