"""One schema for the rows of every benchmark, with its one writer and reader.

A report is a JSON file: {schema_version, benchmark, machines, rows, ...}. A row is one thing that
was timed; `machines` holds, by a short digest that rows name, what each was measured on. What else
a benchmark keeps (tables of layers, notes) stands beside the rows. Reports from before the schema
are read by dgc.bench.older.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from dgc.bench import older
from dgc.errors import IntegrityError
from dgc.run.files import atomic_write

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class BenchRow:
    """One contender in one setting.

    `name`: what the benchmark calls it. `run`: rows of one run took turns with each other, so their
    figures may be divided by each other; those of two runs may not. `low` and `high`: quartiles or
    range, as `spread` says. `ratio`: its time over that of `ratio_to` in the same run. `why_not`:
    why it was not measured; all figures are then None.
    """

    benchmark: str  # inference | training | dashboard | ...
    name: str
    network: str = ""
    variant: str = ""  # dgc | dense | sgc
    engine: str = ""  # native | plain | masked | eager | compile | onnxruntime | openvino | ...
    precision: str = "float32"
    device: str = "cpu"
    threads: int | None = None
    batch: int | None = None
    unit: str = "ms/image"
    n: int = 0
    median: float | None = None
    low: float | None = None
    high: float | None = None
    spread: str = "quartiles"
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    ratio_to: str | None = None
    bar: float | None = None
    passed: bool | None = None
    machine: str = ""  # a key of the report's `machines`
    run: str = ""
    why_not: str | None = None
    note: str = ""
    values: tuple[float, ...] = ()
    # what only this benchmark has: progress, memory_format, peak_mb, ...
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def setting(self) -> tuple[object, ...]:
        """What it was measured in, without the contender."""
        return (
            self.benchmark,
            self.network,
            self.more.get("progress"),
            self.threads,
            self.batch,
            self.device,
        )


@dataclass
class BenchReport:
    """Rows, what they were measured on, and the tables and notes of one benchmark."""

    benchmark: str
    rows: list[BenchRow] = field(default_factory=list)
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    beside: dict[str, Any] = field(default_factory=dict)

    def add_machine(self, facts: Mapping[str, Any]) -> str:
        """Its key. Two days on the same machine, with the same versions, are one machine."""
        lasting = {k: v for k, v in facts.items() if k not in ("date", "peak_gmacs", "load")}
        text = orjson.dumps(lasting, option=orjson.OPT_SORT_KEYS)
        key = hashlib.sha256(text).hexdigest()[:12]
        self.machines.pop(key, None)  # so that it is the last
        self.machines[key] = dict(facts)
        return key

    def add_run(self, rows: Sequence[BenchRow]) -> None:
        """The rows of one run take the place of those of an older run of the same contenders in the
        same setting on the same machine.
        """
        old = {key for key, group in self.by_run().items() if _same_run(group, rows)}
        self.rows = [row for row in self.rows if (row.setting, row.run) not in old] + list(rows)

    def by_run(self) -> dict[tuple[object, ...], list[BenchRow]]:
        """Rows that may be compared with each other, in the order of the file."""
        found: dict[tuple[object, ...], list[BenchRow]] = {}
        for row in self.rows:
            found.setdefault((row.setting, row.run), []).append(row)
        return found

    @property
    def machine(self) -> dict[str, Any]:
        """What was measured on last; {} where nothing was."""
        return self.machines[next(reversed(self.machines))] if self.machines else {}

    @property
    def other_machines(self) -> dict[str, int]:
        """Rows that were measured on other machines or versions: their key -> how many."""
        last = next(reversed(self.machines), None)
        keys = [row.machine for row in self.rows if row.machine != last]
        return {key: keys.count(key) for key in dict.fromkeys(keys)}


def _same_run(old: Sequence[BenchRow], new: Sequence[BenchRow]) -> bool:
    def identity(rows: Iterable[BenchRow]) -> set[tuple[object, ...]]:
        return {(row.setting, row.name, row.machine) for row in rows}

    return identity(old) == identity(new)


def write_report(path: Path, report: BenchReport) -> None:
    document = {
        "schema_version": SCHEMA_VERSION,
        "benchmark": report.benchmark,
        "machines": report.machines,
        "rows": [asdict(row) for row in report.rows],
        **report.beside,
    }
    atomic_write(path, orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def read_report(path: Path, benchmark: str) -> BenchReport:
    """The report in a file; an empty one where there is none,
    or nothing in it. Raises IntegrityError.
    """
    if not path.exists() or not path.stat().st_size:
        return BenchReport(benchmark)
    try:
        document = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise IntegrityError(f"{path} is no report of a benchmark: {error}") from error
    if not isinstance(document, dict):
        raise IntegrityError(f"{path} is no report of a benchmark: name another file with --out")
    return parse_report(document, benchmark, str(path))


def parse_report(document: Mapping[str, Any], benchmark: str, origin: str) -> BenchReport:
    """A report of any age, from its JSON."""
    version = document.get("schema_version", 1)
    if version == 1:
        found = older.convert(document, benchmark)
        report = BenchReport(benchmark, beside=found.beside)
        key = report.add_machine(found.machine) if found.machine else ""
        report.rows = [BenchRow(**{**row, "machine": key}) for row in found.rows]
        return report
    if version != SCHEMA_VERSION or document.get("benchmark") != benchmark:
        raise IntegrityError(
            f"{origin} holds a report of {document.get('benchmark')!r}, version {version}; this"
            f" program writes {benchmark!r}, version {SCHEMA_VERSION}: name another file with --out"
        )
    own = {"schema_version", "benchmark", "machines", "rows"}
    return BenchReport(
        benchmark,
        [_row(row) for row in document["rows"]],
        {key: dict(facts) for key, facts in document["machines"].items()},
        {key: value for key, value in document.items() if key not in own},
    )


def _row(row: Mapping[str, Any]) -> BenchRow:
    """Fields that a newer program added are left out."""
    known = {each.name for each in fields(BenchRow)}
    kept = {key: value for key, value in row.items() if key in known}
    return BenchRow(**{**kept, "values": tuple(kept.get("values", ()))})
