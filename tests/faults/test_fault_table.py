"""The table itself: it counts a failed run as failed, and merging keeps what was not run."""

from pathlib import Path

import pytest

from tests.faults.conftest import FaultTable


def test_failed_run_is_counted_and_raised():
    table = FaultTable()
    with table.case(1, "x") as case, pytest.raises(ValueError, match="boom"), case.run():
        raise ValueError("boom")
    assert (case.runs, case.passed) == (1, 0)


def test_merge_keeps_other_lines(tmp_path: Path):
    path = tmp_path / "faults.md"
    for row, name in (("27", "killed"), ("3", "wrong value")):
        table = FaultTable()
        with table.case(row, name) as case, case.run():
            pass
        table.merge_into(path)
    lines = [
        line
        for line in path.read_text().splitlines()
        if line.startswith("| ") and "case" not in line
    ]
    assert [line.split(" | ")[1:4] for line in lines] == [
        ["wrong value", "1", "1"],
        ["killed", "1", "1"],
    ]
