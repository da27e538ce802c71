"""`dgcctl dash --once`, and what the command refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tui.conftest import one
from tests.tui.terminal import ROOT, Terminal
from tests.waiting import GUARD


def dash(runs: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dgcctl", "dash", "--runs-dir", str(runs), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment,
        timeout=GUARD,
        check=False,
    )


def test_once_prints_one_frame_of_plain_text_and_ends(made_runs: Path) -> None:
    done = dash(made_runs, "--once", "--size", "100x20")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 20
    assert max(map(len, lines)) <= 100
    assert "✗ failed" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_once_with_runs_shows_the_first_with_the_others_over_it(made_runs: Path) -> None:
    done = dash(made_runs, "aaa001", "bbb001", "--once", "--size", "120x30")
    assert f"A {one(made_runs, 'aaa001').name}  D {one(made_runs, 'bbb001').name}" in done.stdout
    assert "gap -0.79 " in done.stdout
    assert "⠉" in done.stdout


def test_once_remembers_nothing(made_runs: Path, tmp_path: Path) -> None:
    dash(made_runs, "aaa001", "bbb001", "--once", DGCCTL_CACHE_DIR=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "this is no terminal"),
        (["--once", "--size", "big"], "--size big: should be COLUMNSxLINES"),
        (["--once", "nosuchrun"], "nosuchrun: no such run"),
        (["--keys", "absent.yaml", "--once"], "absent.yaml: no such keys file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    made_runs: Path, arguments: list[str], told: str
) -> None:
    done = dash(made_runs, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_be_drawn_on_is_told_of_once(
    made_runs: Path, tmp_path: Path, term: str
) -> None:
    terminal = Terminal(["-m", "dgcctl", "dash", "--runs-dir", str(made_runs)], env={"TERM": term})
    try:
        assert terminal.process.wait(GUARD) == 2
        terminal.wait_for(lambda: terminal.shows("--once"), "the hint")
        assert not terminal.shows("\x1b[?1049h")
    finally:
        terminal.end()
