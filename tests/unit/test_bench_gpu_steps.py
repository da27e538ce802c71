"""The benchmark of the trainer's step on a GPU, as far as a CPU can run it: rows, and what a row of
a failure says.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgc.bench import gpu_steps
from dgc.bench.gpu_steps import StepCell


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_steps, "STEPS", 2)
    monkeypatch.setattr(gpu_steps, "WARM", 1)
    monkeypatch.setattr(gpu_steps, "set_switches", lambda **_: None)
    monkeypatch.setitem(gpu_steps.NETWORKS, "densenet86", ("cifar10_dydensenet86_h4", 8, 10))


def test_a_row_is_written_as_soon_as_it_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "steps.json"
    words = ["--device=cpu", "--network=densenet86", "--batch=2", "--precision=fp32"]
    assert gpu_steps.main([*words, f"--out={out}"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert rows == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 8
    measured = {(row["way"], row["graph"]): row for row in rows if "error" not in row}
    # neither graphs nor Triton's kernels are to be had here
    assert set(measured) == {("dense", False), ("dense_channels_last", False), ("dgc", False)}
    assert all(
        row["n"] == 2 and row["least"] <= row["ms"] <= row["most"] for row in measured.values()
    )
    failed = next(row for row in rows if row["way"] == "triton" and not row["graph"])
    assert failed["error"].startswith("ArgumentError: backend='triton'")


def test_no_row_is_begun_after_the_time(tmp_path: Path) -> None:
    out = tmp_path / "steps.json"
    assert gpu_steps.main(["--device=cpu", "--seconds=-1", f"--out={out}"]) == 0
    assert not out.exists()


def test_the_most_telling_cells_come_first() -> None:
    found = list(gpu_steps.cells(["densenet86"], [64], ["fp32"]))
    assert found[0] == StepCell("densenet86", 64, "fp32", "triton", graph=True)
    assert len(set(found)) == len(found) == 8
