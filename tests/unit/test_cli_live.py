"""The live line where there is no terminal: a plain line now and then, never the same one twice."""

from __future__ import annotations

import os
import pty
import sys
import termios

import pytest
from rich.cells import cell_len

from dgc.run.events import EventKind
from dgcctl.cli._ui import diagnostics, progress_line
from dgcctl.cli._ui.transfer_line import bar_text
from dgcctl.core.runs.tail import Progress

STEP = {
    "epoch": 0,
    "progress": 0.0,
    "lr": 0.1,
    "loss": 2.0,
    "cross_entropy": 2.0,
    "gate_l1": 1.0,
    "error": 90.0,
}


def test_a_training_that_does_not_move_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_line, "PLAIN_SECONDS", 0.0)
    line, progress = progress_line.LiveLine(0.25), Progress()
    for step in (1, 1, 1, 2):
        progress.take([{"kind": EventKind.STEP, "step": step, "inactive": 0, "t": 1.0, **STEP}])
        line.show(progress, [])
    said = capsys.readouterr().err.splitlines()
    assert [part for text in said for part in text.split("  ") if part.startswith("step")] == [
        "step 1",
        "step 2",
    ]


@pytest.mark.parametrize("width", range(20, 140))
def test_a_line_without_room_leaves_out_whole_fields_and_keeps_the_time_left(width: int) -> None:
    progress = Progress(epochs=300, steps=234_600, images_per_s=1840.0, eta_s=7300.0)
    progress.take([{"kind": EventKind.STEP, "step": 123_456, "inactive": 0, "t": 1.0, **STEP}])
    whole = progress_line.progress_line(progress, 0.25)
    line = progress_line.fitting_line(progress, 0.25, width)
    assert len(line) <= width
    fields = line.split("  ")
    if width >= len("step 123456/234600"):
        assert set(fields) <= set(whole.split("  "))
    if width >= 32:
        assert fields[-1].startswith("ETA ")
    if width >= len(whole):
        assert line == whole


def test_at_80_columns_the_step_the_epoch_the_loss_and_the_time_left_are_there() -> None:
    progress = Progress(epochs=300, steps=234_600, images_per_s=1840.0, eta_s=7300.0)
    progress.take([{"kind": EventKind.STEP, "step": 123_456, "inactive": 0, "t": 1.0, **STEP}])
    names = [
        field.split()[0] for field in progress_line.fitting_line(progress, 0.25, 79).split("  ")
    ]
    assert {"epoch", "step", "loss", "ETA"} <= set(names)


@pytest.mark.parametrize("width", [1, 20, 40, 80])
def test_a_line_that_is_rewritten_never_wraps(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of a download too, with a name of any length, in wide characters."""
    monkeypatch.setenv("COLUMNS", str(width))
    diagnostics.draw(bar_text("網路" * 40, 1 << 20, 5 << 20, 1e6))
    drawn = capsys.readouterr().err.removeprefix("\r\x1b[2K")
    assert cell_len(drawn) <= max(1, width - 1)
    assert drawn or width == 1


def test_a_terminal_that_does_not_know_its_width_has_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    master, slave = pty.openpty()
    with open(slave, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert os.get_terminal_size(slave).columns == 0
        assert diagnostics.columns() == 80
        termios.tcsetwinsize(slave, (24, 50))
        assert diagnostics.columns() == 50
    os.close(master)
