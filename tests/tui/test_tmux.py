"""A real training in a real terminal: watched from first step to last, stopped and resumed from the
dashboard.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dgc.run.events import EventKind, metric_digest, read_events
from dgc.run.paths import RunDir
from dgc.run.status import read_status
from tests.tui.terminal import ROOT
from tests.waiting import GUARD, wait_for

TMUX = shutil.which("tmux")
# 64 steps an epoch, four epochs: long enough to act on, and the whole pruning schedule on real
# images.
CHANGES = [
    "train.epochs=4",
    "data.limit_train=4096",
    "data.limit_val=250",
    "train.log_every=1",
    "train.threads=1",
]
STEPS = 256
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(TMUX is None, reason="needs tmux on the PATH"),
]


class Pane:
    """One tmux server of our own with one window."""

    def __init__(self, folder: Path) -> None:
        self._tmux = [str(TMUX), "-S", str(folder / "tmux.sock")]

    def start(self, command: list[str], env: dict[str, str]) -> None:
        pairs = [word for key, value in env.items() for word in ("-e", f"{key}={value}")]
        self._run(
            *("new-session", "-d", "-x", "160", "-y", "48", "-c", str(ROOT), *pairs, *command),
            *(";", "set-option", "-g", "remain-on-exit", "on"),  # so that it can say how it ended
        )

    def _run(self, *words: str) -> str:
        return subprocess.run(
            [*self._tmux, *words], capture_output=True, text=True, check=True, timeout=GUARD
        ).stdout

    def text(self) -> str:
        return self._run("capture-pane", "-p")

    def press(self, *keys: str) -> None:
        for key in keys:
            self._run("send-keys", key)
            time.sleep(0.3)

    def wait_for(self, holds: Callable[[str], bool], what: str) -> str:
        wait_for(lambda: holds(self.text()), what, by=self, pause=0.1)
        return self.text()

    def poll(self) -> int | None:
        """The exit code of the window's command, once it has ended."""
        status = self._run("display-message", "-p", "#{pane_dead}:#{pane_dead_status}").strip()
        dead, _, code = status.partition(":")
        return int(code or -1) if dead == "1" else None

    def last_words(self) -> str:
        return f"\n{self.text()}"

    def end(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def pane(tmp_path: Path) -> Iterator[Pane]:
    found = Pane(tmp_path)
    yield found
    found.end()


def unwatched(folder: Path, env: dict[str, str]) -> RunDir:
    command = [sys.executable, "-m", "dgcctl", "train", "demo", *CHANGES, "--runs-dir", str(folder)]
    subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, check=True, capture_output=True, timeout=GUARD
    )
    return RunDir(next(folder.iterdir()))


def test_a_training_that_is_watched_stopped_and_resumed_computes_what_an_unwatched_one_does(
    pane: Pane, tmp_path: Path
) -> None:
    env = {
        "DGCCTL_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    watched = tmp_path / "watched"
    command = [
        sys.executable,
        "-m",
        "dgcctl",
        "train",
        "demo",
        *CHANGES,
        "--dash",
        "--runs-dir",
        str(watched),
    ]
    pane.start(command, env)

    pane.wait_for(lambda frame: "▶ running" in frame, "the running run")
    pane.wait_for(lambda frame: "loss  A" in frame and f"/{STEPS}" in frame, "the first steps")
    pane.wait_for(lambda frame: "epoch 1/4" in frame, "the first epoch")
    pane.press("s")
    pane.wait_for(lambda frame: "It finishes its step, saves and stops." in frame, "the question")
    pane.press("y")
    pane.wait_for(lambda frame: "■ stopped" in frame, "the stop")
    run = RunDir(next(watched.iterdir()))
    stopped_at = read_status(run).step
    assert 0 < stopped_at < STEPS

    pane.press("r", "y")
    pane.wait_for(lambda frame: "▶ running" in frame, "the resumed run")
    last = pane.wait_for(
        lambda frame: "✓ done" in frame and f"step {STEPS}/{STEPS}" in frame, "the end"
    )
    assert "100%" in last
    pane.press("g")
    pane.wait_for(lambda frame: "you are here: 100% of training" in frame, "the gate map")
    assert "evaluation 4/4" in pane.text()
    pane.press("escape", "q")
    assert not (run.control / "stop").exists(), "the trainer took the request away"

    events = read_events(run)
    assert [event["step"] for event in events if event["kind"] == EventKind.RESUME] == [stopped_at]
    assert all(event.get("exact", True) for event in events if event["kind"] == EventKind.RESUME)
    expected = metric_digest(read_events(unwatched(tmp_path / "unwatched", env)))
    assert metric_digest(events) == expected
