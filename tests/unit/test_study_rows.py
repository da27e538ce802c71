"""The tables of a study, written by several people on several machines."""

from __future__ import annotations

from pathlib import Path

from benchmarks import study_rows

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "docs/studies/cifar10_jpeg_width"


def test_rows_of_runs_that_lie_elsewhere_stay(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("results.csv", "curves.csv"):
        (tmp_path / name).write_bytes((STUDY / name).read_bytes())
    study_rows.main(tmp_path / "runs", tmp_path)
    for name in ("results.csv", "curves.csv"):
        assert (tmp_path / name).read_bytes() == (STUDY / name).read_bytes(), name
