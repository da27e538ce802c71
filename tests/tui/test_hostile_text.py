"""What stands in files is shown, never obeyed: not by the terminal, and not as markup."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from dgc.run.events import EventWriter
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgcctl.tui.app import DashApp
from tests.tui import frames, synthetic
from tests.tui.frames import press
from tests.tui.test_once import dash as dash_command
from tests.waiting import GUARD

EVIL = "a\x1b]0;owned\x07b\x9b31mc\u202ed\u200be\tf[bold red]g[/]h[@click=app.quit]i[/]\x7f\r"
SEEN = (
    "a\\x1b]0;owned\\x07b\\x9b31mc\\u202ed\\u200be    f[bold red]g[/]h[@click=app.quit]i[/]\\x7f\\r"
)
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
PLACES = (
    (), ("enter",), ("enter", "l"), ("enter", "i"), ("enter", "w"), ("enter", "m"), ("g",), ("n",), ("n", "enter"),
    ("space", "space", "d"), ("space", "space", "d", "x"), ("space", "space", "d", "x", "x"), ("s",),
    ("question_mark",), ("ctrl+p",), ("enter", "m", "end", "enter"),
)  # fmt: skip


def spoiled(value: Any) -> Any:
    """The same document with every text in it followed by EVIL."""
    if isinstance(value, dict):
        return {key: spoiled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spoiled(item) for item in value]
    return value + EVIL if isinstance(value, str) else value


def _spoil(run: RunDir, *names: str) -> None:
    for name in names:
        path = run.file(name)
        if path.exists():
            write_json(path, spoiled(json.loads(path.read_text())))


@pytest.fixture
def evil_runs(tmp_path: Path) -> Path:
    """A live, a failed and a done run whose every text that is free holds EVIL."""
    folder = tmp_path / "runs"
    specs = (
        synthetic.Spec(
            suffix="liv001", state="running", pid=os.getpid(), now_step=300, title="t " + EVIL
        ),
        synthetic.Spec(
            suffix="bad001",
            state="failed",
            now_step=200,
            title="t " + EVIL,
            started=synthetic.T0 - 99,
        ),
        synthetic.Spec(
            suffix="don001", state="done", title="t " + EVIL, started=synthetic.T0 - 999
        ),
    )
    for spec in specs:
        run = synthetic.make(folder, spec)
        _spoil(run, "env.json", "git.json", "data.json", "model.json")
        for file in run.gates.glob("*.json"):
            document = json.loads(file.read_text())
            for layer in document["layers"]:
                layer["name"] += EVIL
            write_json(file, document)
        status = json.loads(run.status.read_text())
        write_json(run.status, {**status, "reason": "r " + EVIL, "host": "h" + EVIL, "note": EVIL})
        with run.log.open("a", newline="") as log:
            log.write(f"error: {EVIL}\n{EVIL}\n")
        writer = EventWriter(run)
        writer.append("alert", level="warning", text="w " + EVIL)
        writer.append(
            "checkpoint",
            step=7,
            path="checkpoints/" + EVIL.replace("/", ""),
            bytes=1,
            epoch=1,
            ms=1.0,
        )
        writer.append("step", step=spec.now_step, **{"m" + EVIL: 1.0})
    named = folder / f"20260101T000000Z-x{EVIL.replace('/', '')}-aaa111"
    named.mkdir()
    (named / "status.json").write_text("{")
    return folder


def obeyed(dash: DashApp) -> list[str]:
    """The characters of the frame that a terminal would take for more than themselves."""
    return [
        letter
        for line in frames.lines(dash)
        for letter in line
        if unicodedata.category(letter) in OBEYED
    ]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(place) or "runs")
async def test_no_screen_lets_a_control_character_through(
    evil_runs: Path, place: tuple[str, ...]
) -> None:
    async with frames.opened(evil_runs, (200, 60)) as (dash, pilot):
        await press(pilot, place)
        dash.notify(EVIL, title=EVIL, timeout=GUARD)
        await frames.until(pilot, lambda: "\\x1b]0;owned\\x07b" in frames.text(dash))
        assert obeyed(dash) == []
        assert dash.is_running


async def test_the_log_is_shown_as_it_is(evil_runs: Path) -> None:
    async with frames.opened(evil_runs, (200, 60), open=("liv001",)) as (dash, pilot):
        await press(pilot, ["l"])
        shown = SEEN.removesuffix("\\r")  # of a line's end
        assert f"error: {shown}" in frames.text(dash)


def test_once_prints_no_control_character(evil_runs: Path) -> None:
    for arguments in ((), ("liv001",), ("bad001",)):
        done = dash_command(evil_runs, *arguments, "--once", "--size", "200x60")
        assert done.returncode == 0, done.stderr
        letters = {letter for line in done.stdout.split("\n") for letter in line}
        assert not [letter for letter in letters if unicodedata.category(letter) in OBEYED]
        assert "\\x1b]0;owned" in done.stdout or arguments == ("liv001",)
