"""What a terminal sends becomes the keys and the text that were meant: pastes, escapes, keys that
come too early.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.events import Key, Paste
from textual.message import Message
from textual.widgets import Input

from dgcctl.tui.screens.help_screen import HelpScreen
from dgcctl.tui.screens.run_screen import RunScreen
from dgcctl.tui.state.poller import Catalogue
from tests.tui import bursts, frames
from tests.tui.frames import press
from tests.tui.terminal import Terminal
from tests.waiting import GUARD

START, END = "\x1b[200~", "\x1b[201~"


def told(tmp_path: Path, *reads: str) -> list[Message]:
    """What the driver of a terminal makes of what it reads, one string a read."""
    from textual.drivers import linux_driver
    from textual.drivers.linux_driver import LinuxDriver

    dash = frames.app(tmp_path)
    assert dash.driver_class is LinuxDriver
    parser = linux_driver.XTermParser()
    return [message for read in reads for message in parser.feed(read)]


def plain(messages: list[Message]) -> list[str]:
    return [
        m.text if isinstance(m, Paste) else m.key for m in messages if isinstance(m, Key | Paste)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mq", "\x1bq", "\x1b", "\x1b\x1b", "\x1b[20", "\x1b[A", "\x1b[<0;10;10M", START, "\x1b[200", "s\x1b[0ms",
    ],
)  # fmt: skip
def test_nothing_inside_a_paste_is_a_key(tmp_path: Path, text: str) -> None:
    whole = f"{START}{text}{END}t"
    expected = [text.replace("\x1b", "␛"), "t"]
    assert plain(told(tmp_path, whole)) == expected
    for cut in range(len(START), len(whole)):
        assert plain(told(tmp_path, whole[:cut], whole[cut:])) == expected, (
            f"read in two parts, {cut}"
        )


@pytest.mark.parametrize("key", ["q", "?", "/", "f", "b", "0", "s", " ", "Z", "+"])
def test_escape_and_a_key_right_after_it_are_both_heard(tmp_path: Path, key: str) -> None:
    alone = plain(told(tmp_path, key))
    assert plain(told(tmp_path, f"\x1b{key}")) == ["escape", *alone]


def test_keys_of_the_terminal_are_what_they_were(tmp_path: Path) -> None:
    sent = "\x1b[A\x1bOB\x1b[1;2C\x1b[5~\x1b\x7f\r"
    assert plain(told(tmp_path, sent)) == ["up", "down", "shift+right", "pageup", "ctrl+w", "enter"]


def test_a_line_feed_is_enter(tmp_path: Path) -> None:
    """What is typed before the terminal is taken over comes with line feeds."""
    assert plain(told(tmp_path, "/a\nl")) == ["slash", "a", "enter", "l"]


async def test_pasted_lines_become_one(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["/"])
        dash.post_message(Paste("state=done\rname~demo\r\n\r\nlr>0\n"))
        await frames.heard(pilot)
        await frames.settled(pilot)
        assert dash.screen.query_one(Input).value == "state=done name~demo lr>0"
        await press(pilot, ["escape", "ctrl+p"])
        dash.post_message(Paste("log\ry"))
        await frames.heard(pilot)
        assert dash.screen.query_one(Input).value == "log y"


async def test_enter_in_the_filter_waits_for_the_list(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = bursts.Late(1.0)
    look = Catalogue.look
    monkeypatch.setattr(Catalogue, "look", lambda *given: (late.read(), look(*given))[1])
    dash = frames.app(runs, tick=late)
    async with dash.run_test(size=frames.LARGE) as pilot:
        try:
            for key in ("/", *"aaa001", "enter", "enter", "l"):
                frames.type_key(dash, key)
            await frames.heard(pilot)
            assert dash.screen.query_one(Input).has_focus
            late.release()
            await frames.settled(pilot)
            assert isinstance(dash.screen, RunScreen)
            assert dash.screen.run_id.endswith("aaa001")
            assert dash.screen.drawer.kind == "log"
            assert dash.store.view.filter == "aaa001"
        finally:
            late.release()


@pytest.fixture
def terminal(made_runs: Path, tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(
        ["-m", "dgcctl", "dash", "--runs-dir", str(made_runs)],
        env={"DGCCTL_CACHE_DIR": str(tmp_path / "cache")},
    )
    yield found
    found.end()


def test_what_is_typed_before_the_first_drawing_does_what_it_does_later(terminal: Terminal) -> None:
    terminal.type("/aaa001\r\rl")
    terminal.wait_for(lambda: terminal.shows("log.txt") or terminal.shows("search"), "the log")
    assert not terminal.shows("aaa001l")


def test_escape_and_a_question_mark_in_one_burst_leave_the_filter_and_open_the_help(
    terminal: Terminal,
) -> None:
    terminal.wait_for(lambda: terminal.shows("disk"), "the list")
    terminal.type("/state=done\x1b?")
    terminal.wait_for(lambda: terminal.shows("what every key does"), "the help")


def test_ctrl_z_gives_the_shell_back_and_a_continue_the_dashboard(terminal: Terminal) -> None:
    terminal.wait_for(lambda: terminal.shows("disk"), "the list")
    terminal.type("\x1a")
    terminal.wait_for(lambda: _state(terminal.process.pid) == "T", "the suspension")
    terminal.output.clear()
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_for(lambda: terminal.shows("disk"), "the list again")
    terminal.type("q")
    assert terminal.process.wait(GUARD) == 0


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


async def test_ctrl_z_where_nothing_can_be_suspended_says_so(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["ctrl+z"])
        assert "nothing can be suspended here" in frames.notified(dash)


async def test_ctrl_c_names_the_key_that_leaves(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["ctrl+c"])
        assert "q leaves the dashboard" in frames.notified(dash)
        assert "[b]" not in frames.notified(dash)


async def test_one_escape_leaves_the_filter(runs: Path) -> None:
    async with frames.opened(runs) as (dash, pilot):
        await press(pilot, ["/", *"state=done", "escape"])
        assert dash.focused is dash.screen.query_one("#runs")
        await press(pilot, ["?"])
        assert isinstance(dash.screen, HelpScreen)
        await press(pilot, ["escape", "enter", "l", "/", *"step", "escape"])
        assert not dash.screen.query_one(Input).has_focus
        assert dash.screen.drawer.search == ""
