"""Row 36: what happens to the dashboard does not happen to training, and a new dashboard shows the
same run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dgc.errors import IntegrityError
from dgc.run.events import EventReader
from dgc.run.paths import RunDir
from dgc.run.status import read_status
from dgcctl.core.numbers import age, spaced_duration
from dgcctl.tui.state.clock import Clock
from tests.tui import frames, synthetic
from tests.tui.terminal import ROOT, Terminal
from tests.waiting import GUARD, wait_for

STEPS = 100_000  # more than any test waits for


@pytest.fixture
def training(tmp_path: Path) -> Iterator[tuple[RunDir, subprocess.Popen[bytes]]]:
    """A process that writes a run."""
    run = synthetic.make(tmp_path / "runs", synthetic.Spec(now_step=0, state="queued", log_lines=1))
    run.events.unlink()
    command = [sys.executable, "-m", "tests.tui.fake_trainer", str(run.path), str(STEPS), "0.05"]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for_step(run, 3, process)
        yield run, process
    finally:
        process.kill()
        process.wait()


def wait_for_step(run: RunDir, step: int, by: subprocess.Popen[bytes]) -> None:
    def reached() -> bool:
        try:
            return read_status(run).step >= step
        except (FileNotFoundError, IntegrityError):
            return False

    wait_for(reached, f"step {step}", by=by, pause=0.02)


def start(run: RunDir, tmp_path: Path, size: tuple[int, int] = (100, 30)) -> Terminal:
    env = {"DGCCTL_CACHE_DIR": str(tmp_path / "cache")}
    return Terminal(
        ["-m", "dgcctl", "dash", run.id, "--runs-dir", str(run.path.parent)], size=size, env=env
    )


def assert_training_goes_on(run: RunDir, process: subprocess.Popen[bytes]) -> None:
    before = read_status(run).step
    wait_for_step(run, before + 10, process)
    assert process.poll() is None
    events = EventReader(run.events)
    steps = [event["step"] for event in events.poll() if event["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1)), "no step is missing or twice"
    assert events.skipped == []


def assert_reattached(run: RunDir, tmp_path: Path) -> None:
    """A new dashboard shows the same run."""
    terminal = start(run, tmp_path)
    try:
        terminal.wait_for(
            lambda: terminal.shows("running") and terminal.shows(run.id), "the new dashboard"
        )
        terminal.type("q")
        assert terminal.process.wait(GUARD) == 0
    finally:
        terminal.end()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_dashboard_that_is_killed_takes_nothing_with_it(
    training, tmp_path: Path, signum: int, fault_table
) -> None:
    run, process = training
    with fault_table.case(36, "dashboard: SIGKILL, SIGTERM, SIGHUP") as case, case.run():
        terminal = start(run, tmp_path)
        try:
            terminal.wait_for(lambda: terminal.shows("running"), "the dashboard")
            terminal.process.send_signal(signum)
            ended = terminal.process.wait(GUARD)
            if signum == signal.SIGTERM:  # by the usual way out: the terminal is put back
                assert ended == 128 + signum
                terminal.wait_for(lambda: terminal.shows("\x1b[?1049l"), "the other screen")
                assert terminal.shows("\x1b[?25h")
            assert_training_goes_on(run, process)
        finally:
            terminal.end()
        assert_reattached(run, tmp_path)


def test_a_stopped_dashboard_stops_nothing_and_goes_on_where_it_was(
    training, tmp_path: Path, fault_table
) -> None:
    run, process = training
    with fault_table.case(36, "dashboard: SIGSTOP, later SIGCONT") as case, case.run():
        terminal = start(run, tmp_path)
        try:
            terminal.wait_for(lambda: terminal.shows("running"), "the dashboard")
            terminal.process.send_signal(signal.SIGSTOP)
            seen = psutil.Process(terminal.process.pid)
            terminal.wait_for(lambda: seen.status() == psutil.STATUS_STOPPED, "the stop")
            assert_training_goes_on(run, process)
            terminal.output.clear()
            terminal.process.send_signal(signal.SIGCONT)
            terminal.wait_for(lambda: len(terminal.output) > 0, "a new frame")
            terminal.type("q")
            assert terminal.process.wait(GUARD) == 0
        finally:
            terminal.end()


@pytest.mark.parametrize("hangup", [signal.SIG_DFL, signal.SIG_IGN], ids=["", "started by nohup"])
def test_a_window_that_is_closed_ends_the_dashboard_alone(
    training, tmp_path: Path, hangup: signal.Handlers, fault_table
) -> None:
    run, process = training
    with fault_table.case(36, "dashboard: terminal closed") as case, case.run():
        before = signal.signal(signal.SIGHUP, hangup)
        try:
            terminal = start(run, tmp_path)
        finally:
            signal.signal(signal.SIGHUP, before)
        try:
            terminal.wait_for(lambda: terminal.shows("running"), "the dashboard")
            children = psutil.Process(terminal.process.pid).children(recursive=True)
            terminal.close()
            terminal.process.wait(GUARD)
            assert_training_goes_on(run, process)
            assert [child for child in children if child.is_running()] == []
        finally:
            terminal.end()
        assert_reattached(run, tmp_path)


@pytest.mark.parametrize("size", [(0, 0), (1, 1), (3, 2)])
def test_a_terminal_of_no_size_harms_nothing_and_grows_again(
    training, tmp_path: Path, size: tuple[int, int], fault_table
) -> None:
    run, process = training
    with fault_table.case(36, "dashboard: terminal of 0x0, 1x1, 3x2") as case, case.run():
        terminal = start(run, tmp_path, size)
        try:
            time.sleep(2)
            assert terminal.process.poll() is None, bytes(terminal.output[-2000:])
            terminal.resize((100, 30))
            terminal.wait_for(lambda: terminal.shows("running"), "a frame after growing")
            terminal.resize(size)
            time.sleep(0.3)
            terminal.resize((90, 28))
            terminal.type("q")
            assert terminal.process.wait(GUARD) == 0
            assert_training_goes_on(run, process)
        finally:
            terminal.end()


def test_a_clock_that_is_set_back_moves_no_age_and_no_duration(fault_table) -> None:
    with fault_table.case(36, "dashboard: clock set back") as case, case.run():
        wall, tick = [1_000_000.0], [0.0]
        clock = Clock(lambda: wall[0], lambda: tick[0])
        assert clock.now() == 1_000_000.0
        wall[0], tick[0] = 10.0, 60.0
        assert clock.now() == 1_000_060.0
        assert age(-5) == "<1m"
        assert spaced_duration(-5) == "0s"


async def test_a_run_from_the_future_is_shown_with_an_age_of_nothing(
    tmp_path: Path, fault_table
) -> None:
    synthetic.make(tmp_path, synthetic.Spec(started=frames.NOW + 10_000))
    with fault_table.case(36, "dashboard: clock set back") as case, case.run():
        async with frames.opened(tmp_path) as (dash, _):
            assert "<1m" in frames.text(dash)


def test_the_dashboard_holds_no_lock_and_no_open_file_of_a_run(training, tmp_path: Path) -> None:
    run, _ = training
    terminal = start(run, tmp_path)
    try:
        terminal.wait_for(lambda: terminal.shows("running"), "the dashboard")
        time.sleep(0.5)
        writable = [
            found.path for found in psutil.Process(terminal.process.pid).open_files()
            if found.path.startswith(str(run.path)) and getattr(found, "mode", "r") != "r"
        ]  # fmt: skip
        assert writable == []
        assert os.listdir(run.path).count("control") == 0
    finally:
        terminal.end()
