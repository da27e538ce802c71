"""The benchmark of many plans at once: what it measures is what its table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dgc
from benchmarks import plan_threads
from dgc.kernels.cpu import library
from tests.plan_files import images, network

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)


def test_eight_threads_with_a_plan_each_give_the_same_bits(tmp_path: Path) -> None:
    file = dgc.save_plan(network(), images(), tmp_path / "x.dgc")
    found = plan_threads.measure(file, 1, 8, 0.1)
    assert found["same_bits"] is True
    assert found["images_per_s"] > 0


def test_a_process_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"x\.dgc: a process failed"):
        plan_threads.measure(tmp_path / "x.dgc", 1, 1, 0.1)


def test_its_rows_and_table(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {(1, 1): [100.0, 110.0], (8, 1): [160.0, 180.0], (1, 8): [200.0, 150.0]}

    def measure(file: Path, processes: int, threads: int, seconds: float) -> dict[str, Any]:
        assert (file.name, seconds) == ("x.dgc", 2.0)
        bits = (processes, threads) != (1, 8)
        return {"images_per_s": speeds[processes, threads].pop(0), "same_bits": bits}

    monkeypatch.setattr(plan_threads, "measure", measure)
    monkeypatch.setattr(plan_threads, "usable_cores", lambda: 2)
    rows = plan_threads.rows_of("net", Path("x.dgc"), 8, 2, 2.0)
    assert all(plan_threads.is_one(row) for row in rows)
    assert [row.median for row in rows] == pytest.approx([(10 + 1e3 / 110) / 2, *middle()])
    assert (rows[2].ratio, rows[2].ratio_low) == pytest.approx(((0.8 + 1.2) / 2, 0.8))
    assert plan_threads.markdown(rows)[-3:] == [
        "| net | one thread alone | 1 | 104.8 | - | 1.00 of 1 | yes | 2 |",
        "| net | processes | 8 | 169.4 | - | 0.81 of 2 | yes | 2 |",
        "| net | threads of one process | 8 | 171.4 | 1.00 (0.80 to 1.20) | 0.83 of 2 | NO | 2 |",
    ]
    assert plan_threads.markdown([]) == []


def middle() -> list[float]:
    return [(1e3 / 160 + 1e3 / 180) / 2, (1e3 / 200 + 1e3 / 150) / 2]
