"""The matrix of the suite: which runs it asks for, how it reads them, and that it goes on where it
stopped.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import matrix

PLAIN = {"isa": "", "load": "none", "seed": ""}


def test_each_value_of_each_kind_is_run_and_the_whole_product_on_demand() -> None:
    few, every = matrix.combinations(whole=False), matrix.combinations(whole=True)
    assert PLAIN in few
    assert (len(few), len(every)) == (8, 36)
    for key, values in (
        ("isa", matrix.INSTRUCTIONS),
        ("load", matrix.LOADS),
        ("seed", matrix.SEEDS),
    ):
        assert {one[key] for one in few} == set(values)


def test_the_command_is_what_a_user_would_type() -> None:
    assert matrix.command(PLAIN) == ["make", "test"]
    assert matrix.command({**PLAIN, "isa": "avx2", "seed": "3"}) == [
        "make",
        "test",
        "ISA=avx2",
        "SEED=3",
    ]
    assert matrix.command({**PLAIN, "load": "one core"})[:2] == ["taskset", "-c"]


def test_the_counts_are_those_of_the_last_line() -> None:
    said = (
        "1 failed in 2s (a test's own pytest)\nx\n3 failed, 1726 passed, 9 skipped, 5 warnings in"
        " 10.1s (0:00:10)\n"
    )
    assert matrix.counts(said) == {"failed": 3, "passed": 1726, "skipped": 9}
    assert matrix.counts("mypy: error") == {}


def test_it_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def pretend(one: dict[str, str], commit: str, log: Path) -> matrix.Row:
        if len(ran) == 3 and not log.with_name("killed").exists():
            log.with_name("killed").touch()
            raise KeyboardInterrupt
        ran.append(str(one))
        code = int(one["seed"] == "2")
        return {
            "commit": commit,
            "command": "make test",
            **one,
            "exit_code": code,
            "counts": {},
            "seconds": 1,
        }

    monkeypatch.setattr(matrix, "run", pretend)
    monkeypatch.setattr(matrix, "commit_of", lambda folder: "abc")
    rows = tmp_path / "deep" / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        matrix.main(["--rows", str(rows)])
    with rows.open("a") as file:
        file.write('{"commit": "abc", "exit')  # a kill cut this line
        file.write("\n")
    assert matrix.main(["--rows", str(rows)]) == 1
    assert len(ran) == len(set(ran)) == 8
    assert capsys.readouterr().err == "not green: {'isa': '', 'load': 'none', 'seed': '2'}\n"
    assert matrix.main(["--rows", str(rows)]) == 1
    assert len(ran) == 8
    assert matrix.main(["--rows", str(rows), "--again"]) == 1
    assert len(ran) == 9
    monkeypatch.setattr(matrix, "commit_of", lambda folder: "def")
    matrix.main(["--rows", str(rows)])
    assert len(ran) == 17
    assert all(
        json.loads(line)["commit"] for line in rows.read_text().splitlines() if line.endswith("}")
    )
