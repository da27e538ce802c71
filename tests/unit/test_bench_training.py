"""The training benchmark: every way in its own process, what is compared with what, and what it
says when it cannot.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dgc.bench import __main__ as inference
from dgc.bench import training
from dgc.bench.rows import BenchReport, BenchRow, parse_report, read_report
from dgc.bench.training import (
    ContenderFailedError,
    Process,
    TrainingCell,
    best_dense,
    measure,
    suspicious,
    table,
)
from dgc.bench.training_contenders import CONTENDERS, peak_mb


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
    found = read_report(out, "training").rows
    assert [row.name for row in found] == ["dense", "dgc", "dense_bf16"]
    assert {(row.network, row.threads, row.batch, row.n, row.ratio_to) for row in found} == {
        ("tiny", 1, 4, 1, "dense")
    }
    assert best_dense(found).name in ("dense", "dense_bf16")
    assert [row.why_not for row in found] == [None] * 3
    assert "| tiny, 4 | 0.9 | 1 | dgc | 1 |" in printed


def rows_of(ways: dict[str, dict[str, Any]], **failed: str) -> list[BenchRow]:
    """A cell as reports were written before they had one schema."""
    cell = {
        "network": "tiny", "progress": 0.9, "threads": 1, "batch": 4, "n": 1, "ways": ways, "failed": failed,
    }  # fmt: skip
    return parse_report({"machine": {}, "cells": [cell]}, "training", "here").rows


def test_the_best_dense_way_is_the_dense_row_with_the_least_ratio() -> None:
    rows = {
        "dense": row(1.0),
        "dense_bf16": row(0.6),
        "dense_channels_last": row(0.7),
        "dgc": row(0.3),
    }
    assert best_dense(rows_of(rows)).name == "dense_bf16"
    assert best_dense(rows_of(rows), "float32").name == "dense_channels_last"


def shown(rows: list[BenchRow], *, bf16: bool = True) -> str:
    report = BenchReport("training", rows)
    report.add_machine(
        {
            "cpu": "a CPU",
            "packages": {"torch": "2"},
            "python": "3",
            "isa": "avx2",
            "date": "today",
            "native_bf16": bf16,
        }
    )
    return table(report)


def test_the_table_divides_by_the_best_dense_way_and_names_it() -> None:
    rows = {
        "dense": row(1.0),
        "dense_bf16": row(0.5),
        "dense_channels_last": row(0.8),
        "dgc": row(0.4),
    }
    text = shown(rows_of(rows))
    line = "| dgc | 1 | 1.000 | 0.40 (0.40-0.40) | 0.80 | dense_bf16 | 0.50 | 1.00 | 100 |"
    assert line in text
    assert len({row.count("|") for row in text.splitlines() if row.startswith("|")}) == 1
    assert "BF16" not in text


def test_what_cannot_be_trusted_or_was_not_measured_is_said_below_the_table() -> None:
    rows = rows_of({"dense": row(1.0), "dgc": row(0.4, seconds=2.0)}, plain="no luck")
    assert suspicious(rows) == ["peak_mb"]
    text = shown(rows, bf16=False)
    assert "peak_mb is the same for all ways: do not trust it" in text
    assert "plain was not measured: no luck" in text
    assert "no BF16 instructions" in text


def test_a_way_that_fails_is_named_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(CONTENDERS, "no such way", CONTENDERS["dgc"])
    dense, failed = measure(
        TrainingCell("tiny", 0.0, 1), ["no such way"], 1, machine="here", run="now"
    )
    assert (dense.name, dense.n, dense.why_not) == ("dense", 1, None)
    assert (failed.name, failed.n, failed.median) == ("no such way", 0, None)
    assert "no such way" in str(failed.why_not)


def test_a_way_is_not_started_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LEAST_MEMORY", 1e18)
    with pytest.raises(ContenderFailedError, match="GB of memory free"):
        Process("tiny", 0.0, "dense", 1)


def test_the_peak_is_a_process_own_and_not_what_its_parent_held() -> None:
    held = bytearray(600_000_000)
    held[::4096] = b"x" * len(held[::4096])
    code = "from dgc.bench.training_contenders import peak_mb; print(peak_mb())"
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
