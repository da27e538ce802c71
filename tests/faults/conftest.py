"""The table of the fault suite: every test counts its cases here, and the table becomes
docs/faults.md.

    def test_something(fault_table):
        with fault_table.case("13", "quota page answers with 200") as case:
            for page in PAGES:
                with case.run():          # one run: counted, timed, passed unless it raises
                    ...

`DGCCTL_FAULT_TABLE=docs/faults.md pytest tests/faults` merges the counted rows into that file (rows
of cases that were not run this time stay, so the full form can be run in pieces).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HEADER = """# Faults: what was done to it, and what held

Written by the fault suite (`DGCCTL_FAULT_TABLE=docs/faults.md pytest tests/faults`). A run passes when the exit code,
the error line and everything committed before the fault are as they must be. Rows to 40 are those of the design's list
of forty faults; 41 is every command of the command line.

| row | case | runs | passed | worst time |
|--|--|--:|--:|--:|
"""
_ROW = re.compile(
    r"^\| (?P<row>[^|]+) \| (?P<case>[^|]+) \| (?P<runs>\d+) \| (?P<passed>\d+) \|"
    r" (?P<worst>[\d.]+) s \|$"
)


@dataclass
class Case:
    """One line of the table."""

    row: str
    name: str
    runs: int = 0
    passed: int = 0
    worst: float = 0.0

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """One injected fault: a raised exception counts as a run that did not pass (and goes on
        up).
        """
        self.runs += 1
        began = time.monotonic()
        try:
            yield
            self.passed += 1
        finally:
            self.worst = max(self.worst, time.monotonic() - began)

    def line(self) -> str:
        return f"| {self.row} | {self.name} | {self.runs} | {self.passed} | {self.worst:.2f} s |"


@dataclass
class FaultTable:
    """All cases of this session, by row and name."""

    cases: dict[tuple[str, str], Case] = field(default_factory=dict)

    @contextlib.contextmanager
    def case(self, row: str | int, name: str) -> Iterator[Case]:
        """The case `name` of the list's `row`; entered again (parametrized tests) it goes on
        counting.
        """
        name = name.replace("|", "/")
        yield self.cases.setdefault((str(row), name), Case(str(row), name))

    def add(self, others: list[Case]) -> None:
        """Count what another worker has run too."""
        for other in others:
            mine = self.cases.setdefault((other.row, other.name), Case(other.row, other.name))
            mine.runs, mine.passed = mine.runs + other.runs, mine.passed + other.passed
            mine.worst = max(mine.worst, other.worst)

    def merge_into(self, path: Path) -> None:
        """Rewrite the table: this session's cases replace their old lines, other lines stay."""
        old = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            if match := _ROW.match(line):
                old[(match["row"], match["case"])] = Case(
                    match["row"],
                    match["case"],
                    int(match["runs"]),
                    int(match["passed"]),
                    float(match["worst"]),
                )
        merged = old | self.cases
        keys = sorted(merged, key=lambda key: (int(re.split(r"\D", key[0])[0] or 0), key))
        path.write_text(
            HEADER + "".join(merged[key].line() + "\n" for key in keys if merged[key].runs)
        )


_TABLE = pytest.StashKey[FaultTable]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TABLE] = FaultTable()


@pytest.fixture(scope="session")
def fault_table(pytestconfig: pytest.Config) -> FaultTable:
    return pytestconfig.stash[_TABLE]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With several workers (pytest-xdist) each has a table of its own, and sends it to the one who
    prints.
    """
    if hasattr(session.config, "workeroutput"):
        cases = session.config.stash[_TABLE].cases.values()
        session.config.workeroutput["faults"] = [list(vars(case).values()) for case in cases]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[_TABLE].add(
        [Case(*values) for values in getattr(node, "workeroutput", {}).get("faults", [])]
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    table = config.stash[_TABLE]
    if not table.cases:
        return
    terminalreporter.section("faults: row | case | runs | passed | worst time")
    for case in table.cases.values():
        terminalreporter.write_line(case.line())
    if target := os.environ.get("DGCCTL_FAULT_TABLE"):
        table.merge_into(Path(target))
