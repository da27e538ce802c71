"""The training benchmark: every way in its own process, what is compared with what, and what it
says when it cannot.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dgc.bench import __main__ as inference
from dgc.bench import training
from dgc.bench.training import Cell, Process, WayFailedError, best_dense, measure, suspicious, table
from dgc.bench.training_ways import WAYS, peak_mb


def row(ratio: float, peak: float = 100.0, seconds: float = 1.0) -> dict[str, Any]:
    return {
        "seconds_median": seconds, "seconds_all": [seconds], "time_ratio": ratio, "time_ratio_range": [ratio, ratio],
        "saved_mb_per_sample": 1.0, "peak_mb": peak,
    }  # fmt: skip


def test_a_cell_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new folder" / "training.json"
    cell = "--network tiny --progress 0.9 --threads 1 --steps 1 --way dgc --way dense_bf16"
    code = training.main([*cell.split(), f"--out={out}"])
    printed = capsys.readouterr().out
    assert code == 0
    assert printed == out.with_suffix(".md").read_text()
    (found,) = json.loads(out.read_text())["cells"]
    assert list(found["ways"]) == ["dense", "dgc", "dense_bf16"]
    assert found["best_dense"] in ("dense", "dense_bf16")
    assert found["failed"] == {}
    assert "| tiny, 4 | 0.9 | 1 | dgc | 1 |" in printed


def test_the_best_dense_way_is_the_dense_row_with_the_least_ratio() -> None:
    rows = {
        "dense": row(1.0),
        "dense_bf16": row(0.6),
        "dense_channels_last": row(0.7),
        "dgc": row(0.3),
    }
    assert best_dense(rows) == "dense_bf16"


def report(cell: dict[str, Any], *, bf16: bool = True) -> str:
    facts = {
        "cpu": "a CPU",
        "packages": {"torch": "2"},
        "python": "3",
        "isa": "avx2",
        "date": "today",
    }
    whole = {
        "network": "tiny",
        "progress": 0.9,
        "threads": 1,
        "batch": 4,
        "n": 1,
        "failed": {},
        "suspicious": [],
    }
    return table({"machine": facts, "native_bf16": bf16, "cells": [whole | cell]})


def test_the_table_divides_by_the_best_dense_way_and_names_it() -> None:
    rows = {"dense": row(1.0), "dense_channels_last": row(0.5), "dgc": row(0.4)}
    shown = report({"ways": rows, "best_dense": "dense_channels_last"})
    assert (
        "| dgc | 1 | 1.000 | 0.40 (0.40-0.40) | 0.80 | dense_channels_last | 1.00 | 100 |" in shown
    )
    assert "BF16" not in shown


def test_what_cannot_be_trusted_or_was_not_measured_is_said_below_the_table() -> None:
    rows = {"dense": row(1.0), "dgc": row(0.4, seconds=2.0)}
    found = suspicious(rows)
    assert found == ["peak_mb"]
    shown = report(
        {"ways": rows, "best_dense": "dense", "suspicious": found, "failed": {"plain": "no luck"}},
        bf16=False,
    )
    assert "peak_mb is the same for all ways: do not trust it" in shown
    assert "plain was not measured: no luck" in shown
    assert "no BF16 instructions" in shown


def test_a_way_that_fails_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(training.WAYS, "no such way", WAYS["dgc"])
    found = measure(Cell("tiny", 0.0, 1), ["no such way"], 1)
    assert list(found["ways"]) == ["dense"]
    assert "no such way" in found["failed"]["no such way"]


def test_a_way_is_not_started_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LEAST_MEMORY", 1e18)
    with pytest.raises(WayFailedError, match="GB of memory free"):
        Process("tiny", 0.0, "dense", 1)


def test_the_peak_is_a_process_own_and_not_what_its_parent_held() -> None:
    held = bytearray(600_000_000)
    held[::4096] = b"x" * len(held[::4096])
    code = "from dgc.bench.training_ways import peak_mb; print(peak_mb())"
    mine = peak_mb()
    del held
    child = float(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True
        ).stdout
    )
    assert mine - child > 300


@pytest.mark.parametrize("program", [training.main, inference.main])
def test_where_nothing_can_be_written_is_said_first(
    program: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    for out, says in (
        (tmp_path, "is a folder: name a file"),
        (tmp_path / "file" / "x.json", "cannot be written"),
    ):
        assert program([f"--out={out}"]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.splitlines()) == 1
        assert says in told.err


def test_progress_belongs_to_training() -> None:
    assert (
        subprocess.run(
            [sys.executable, "-m", "dgcctl", "bench", "--progress=0.5"], check=False
        ).returncode
        == 2
    )
