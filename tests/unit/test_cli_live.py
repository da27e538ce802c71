"""The live line where there is no terminal: a plain line now and then, never the same one twice."""

from __future__ import annotations

import pytest

from dgc.run.events import Kind
from dgcctl.cli._ui import progress_line
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
        progress.take([{"kind": Kind.STEP, "step": step, "inactive": 0, "t": 1.0, **STEP}])
        line.show(progress, [])
    said = capsys.readouterr().err.splitlines()
    assert [part for text in said for part in text.split("  ") if part.startswith("step")] == [
        "step 1/0",
        "step 2/0",
    ]


@pytest.mark.parametrize("width", range(20, 140))
def test_a_line_without_room_leaves_out_whole_fields_and_keeps_the_time_left(width: int) -> None:
    progress = Progress(epochs=300, steps=234_600, images_per_s=1840.0, eta_s=7300.0)
    progress.take([{"kind": Kind.STEP, "step": 123_456, "inactive": 0, "t": 1.0, **STEP}])
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
    progress.take([{"kind": Kind.STEP, "step": 123_456, "inactive": 0, "t": 1.0, **STEP}])
    names = [
        field.split()[0] for field in progress_line.fitting_line(progress, 0.25, 79).split("  ")
    ]
    assert {"epoch", "step", "loss", "ETA"} <= set(names)
