"""The one schema of benchmark rows: written, read, merged; and reports from before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from dgc.bench.inference_report import markdown
from dgc.bench.named import NAMED, contender
from dgc.bench.rows import (
    SCHEMA_VERSION,
    BenchReport,
    BenchRow,
    parse_report,
    read_report,
    write_report,
)
from dgc.bench.training_contenders import CONTENDERS
from dgc.errors import IntegrityError

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
ROW = BenchRow(
    "inference", "native", "resnet18", "dgc", "native", threads=1, batch=1, n=7, median=2.0, low=1.9, high=2.2,
    ratio=0.5, ratio_to="dense_eager", run="now", values=(1.9, 2.0, 2.2), more={"progress": 0.9},
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    report = BenchReport("inference", beside={"notes": ["slow today"]})
    key = report.add_machine({"cpu": "a CPU", "packages": {"torch": "2"}, "date": "today"})
    report.add_run([replace(ROW, machine=key)])
    path = tmp_path / "r.json"
    write_report(path, report)
    assert read_report(path, "inference") == report
    document = orjson.loads(path.read_bytes())
    assert document["schema_version"] == SCHEMA_VERSION
    assert document["machines"][document["rows"][0]["machine"]]["packages"] == {"torch": "2"}
    for name in (
        "network", "variant", "engine", "precision", "device", "threads", "batch", "n", "median", "spread", "ratio",
        "ratio_to", "machine",
    ):  # fmt: skip
        assert name in document["rows"][0]


def test_a_machine_is_the_same_on_another_day_and_another_with_other_versions() -> None:
    report = BenchReport("inference")
    first = report.add_machine({"cpu": "a", "packages": {"torch": "2"}, "date": "today"})
    other = report.add_machine({"cpu": "a", "packages": {"torch": "3"}, "date": "today"})
    again = report.add_machine({"cpu": "a", "packages": {"torch": "2"}, "date": "tomorrow"})
    assert first == again != other
    assert report.machine["date"] == "tomorrow"
    report.rows = [replace(ROW, machine=first), replace(ROW, machine=other)]
    assert report.other_machines == {other: 1}


def test_a_run_of_the_same_contenders_replaces_the_older_one_and_no_other() -> None:
    dense = replace(ROW, name="dense_eager")
    report = BenchReport("inference")
    report.add_run([replace(ROW, run="1"), replace(dense, run="1")])
    report.add_run([replace(ROW, run="2")])  # other contenders: its figures stand apart
    report.add_run([replace(ROW, run="3"), replace(dense, run="3")])
    report.add_run([replace(ROW, run="4", batch=32)])
    assert [(row.run, row.name) for row in report.rows] == [
        ("2", "native"), ("3", "native"), ("3", "dense_eager"), ("4", "native"),
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.name)
def test_reports_that_are_kept_are_read_whatever_their_age(path: Path) -> None:
    document = orjson.loads(path.read_bytes())
    benchmark = path.name.split("-")[0].removesuffix(".json")
    report = read_report(path, benchmark)
    older = document.get("cells", document.get("figures"))
    assert older is None or report.rows
    assert all(row.median is not None or row.why_not for row in report.rows)
    assert all(row.machine in report.machines for row in report.rows)
    if benchmark == "training":
        dense = [row for row in report.rows if row.name == "dense"]
        assert {row.ratio for row in dense} == {1.0}
        assert len(dense) == len(report.by_run())


def test_what_is_no_report_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert read_report(path, "training") == BenchReport("training")
    for text, says in (
        ("no JSON", "is no report of a benchmark"),
        ("[1]", "name another file with --out"),
        (orjson.dumps({"schema_version": 3, "benchmark": "training"}).decode(), "version 3"),
        (orjson.dumps({"schema_version": 2, "benchmark": "inference"}).decode(), "'inference'"),
    ):
        path.write_text(text)
        with pytest.raises(IntegrityError, match=says) as caught:
            read_report(path, "training")
        assert len(str(caught.value).splitlines()) == 1


def test_a_newer_programs_fields_are_left_out() -> None:
    row = {"benchmark": "inference", "name": "native", "colour": "blue"}
    document = {"schema_version": 2, "benchmark": "inference", "machines": {}, "rows": [row]}
    assert parse_report(document, "inference", "here").rows == [BenchRow("inference", "native")]


def test_every_contender_says_what_it_is() -> None:
    assert set(CONTENDERS) <= set(NAMED)
    for name, made in CONTENDERS.items():
        fields = contender(name)
        assert fields["variant"] == made.form
        assert (fields["precision"] == "bf16") == made.bf16
        assert (fields["engine"] == "compile") == made.compiled
        assert (fields["more"].get("memory_format") == "channels_last") == made.channels_last


def test_an_older_report_gives_the_table_that_stands_beside_it() -> None:
    path = RESULTS / "inference-amd-epyc-avx2.json"
    assert markdown(read_report(path, "inference")) == path.with_suffix(".md").read_text()
