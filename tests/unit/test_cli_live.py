"""The live line where there is no terminal: a plain line now and then, never the same one twice."""

from __future__ import annotations

import pytest

from dgc.records import Kind
from dgcctl.cli import live
from dgcctl.core.tail import Progress

STEP = {"epoch": 0, "progress": 0.0, "lr": 0.1, "loss": 2.0, "cross_entropy": 2.0, "gate_l1": 1.0, "error": 90.0}


def test_a_training_that_does_not_move_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(live, "PLAIN_SECONDS", 0.0)
    line, progress = live.LiveLine(0.25), Progress()
    for step in (1, 1, 1, 2):
        progress.take([{"kind": Kind.STEP, "step": step, "inactive": 0, "t": 1.0, **STEP}])
        line.show(progress, [])
    said = capsys.readouterr().err.splitlines()
    assert [part for text in said for part in text.split("  ") if part.startswith("step")] == ["step 1/0", "step 2/0"]
