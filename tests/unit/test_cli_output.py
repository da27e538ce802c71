"""Tables and documents: the same rows in every form, the same bytes on a terminal and in a pipe but
for colour.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

from dgcctl.cli._ui import diagnostics, output, table_widths
from dgcctl.cli._ui.output import Form, TableColumn
from dgcctl.core import numbers

COLUMNS = [
    TableColumn("name"),
    TableColumn("top1_error", "error", numbers.percent, right=True, style=lambda value: "red"),
    TableColumn("note", show=lambda value: str(value or "")),
]
ROWS = [
    {"name": "a|b", "top1_error": 4.767, "note": ""},
    {"name": "größe_1", "top1_error": None, "note": "x & y"},
]


def test_text_is_aligned_and_has_no_blanks_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    output.table("rows", COLUMNS, ROWS)
    assert (
        capsys.readouterr().out
        == "name      error  note\na|b      4.77 %\ngröße_1       -  x & y\n"
    )


def test_colour_is_all_that_differs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output.table("rows", COLUMNS, ROWS)
    output.facts([("where", Path("x")), ("state", None)])
    plain = capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    output.table("rows", COLUMNS, ROWS)
    output.facts([("where", Path("x")), ("state", None)])
    painted = capsys.readouterr().out
    assert painted != plain
    assert diagnostics.plain(painted) == plain
    assert plain.endswith("where  x\nstate  -\n")


NAMES = ["a cat", "the very same class of long names, kind one", "漢字" * 12]
SHORT = ["a cat", "the very… kind one", "漢字漢字…漢字漢字"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_name_is_shortened_on_a_terminal_and_nowhere_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    columns = [TableColumn("name", "class", most=18), TableColumn("n")]
    rows = [{"name": name, "n": 1} for name in NAMES]
    output.table("classes", columns, rows)
    shown = [line.rpartition(" ")[0].strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown == (SHORT if terminal else NAMES)
    for form in (Form.CSV, Form.MD, Form.LATEX, Form.JSON):
        output.table("classes", columns, rows, form)
        written = capsys.readouterr().out
        assert all(name in written for name in NAMES), form


LONG = {"id": "20260101T000000Z-demo-0a1b2c", "reason": "no space left " * 20, "lr": 0.00001}
LONG_COLUMNS = [
    TableColumn("id", "run"),
    TableColumn("title"),
    TableColumn("reason"),
    TableColumn("lr", right=True),
]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_table_fits_the_terminal_and_a_pipe_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    row = {**LONG, "title": "a title of some length " * 3}
    output.table("runs", LONG_COLUMNS, [row])
    assert str(row["reason"]).strip() in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output.table("runs", LONG_COLUMNS, [row])
    head, line = capsys.readouterr().out.splitlines()
    named = "demo-0a1b2c" if width < 80 else str(row["id"])
    assert line.startswith(f"{named} "), "what one copies still names the run"
    assert line.endswith("1e-05"), "and numbers stay whole"
    least = len(named) + 8 + 8 + 5 + 6  # two texts of eight places, and the gaps
    assert len(line) <= max(width, least)
    assert "…" in line
    assert len(head) <= len(line)


WIDE = [
    TableColumn("id", "run"),
    TableColumn("state"),
    TableColumn("top1_error", "top-1 error", right=True),
    TableColumn("macs_executed", "MACs executed", right=True, drop=1),
    TableColumn("seconds", "took", right=True, drop=2),
    TableColumn("reason"),
]
RUNS = [
    {"id": f"20260101T00000{n}Z-demo-0a1b2{n}", "state": "done", "top1_error": "8.41 %",
     "macs_executed": "1.90 M", "seconds": "3m30s", "reason": "stopped by somebody else"}
    for n in range(2)
]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "heads", "left_out"),
    [
        (100, ["run state top-1 error MACs executed took reason"], ""),
        (80, ["top-1 MACs", "run state error executed took reason"], ""),
        (64, ["top-1 MACs", "run state error executed took reason"], ""),
        (50, ["top-1", "run state error reason"], "MACs executed, took"),
    ],
)
def test_a_narrow_terminal_gets_titles_in_two_lines_short_ids_and_fewer_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    width: int, heads: list[str], left_out: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    output.table("runs", WIDE, RUNS)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [" ".join(line.split()) for line in lines[:-2]] == heads
    assert all(len(line) <= width for line in lines)
    assert (f"no room here for {left_out}:" in printed.err) == bool(left_out)
    whole = width >= 80
    assert lines[-1].startswith("20260101T000001Z-demo-0a1b21" if whole else "demo-0a1b21")


def test_short_ids_that_name_two_runs_are_not_taken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    rows = [{**RUNS[0], "id": f"2026010{n}T000000Z-demo-0a1b2c"} for n in (1, 2)]
    output.table("runs", WIDE[:2], rows)
    assert capsys.readouterr().out.splitlines()[1].startswith("20260101T000000Z-demo-0a1b2c")


def test_two_long_columns_share_what_there_is() -> None:
    heads, may = ("a", "b", "c"), (True, True, False)
    assert table_widths.most((50, 30, 10), heads, may, 94) == [50, 30, 10]
    assert table_widths.most((50, 30, 10), heads, may, 84) == [40, 30, 10]
    assert table_widths.most((50, 30, 10), heads, may, 54) == [20, 20, 10]
    assert table_widths.most((50, 30, 10), heads, may, 10) == [8, 8, 10]


def test_a_file_gets_the_whole_of_a_value_that_a_table_shortens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    column, row = TableColumn("few", "values", in_files="all"), {"few": "a=1", "all": "a=1 b=2"}
    output.table("trials", [column], [row])
    assert capsys.readouterr().out == "values\na=1\n"
    output.table("trials", [column], [row], Form.CSV)
    assert capsys.readouterr().out == "all\na=1 b=2\n"


def test_wide_characters_keep_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(
        "rows", [TableColumn("a"), TableColumn("b")], [{"a": "漢字", "b": 1}, {"a": "x", "b": 2}]
    )
    assert capsys.readouterr().out == "a     b\n漢字  1\nx     2\n"


def test_json_has_a_schema_version_and_raw_values(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(
        "rows", COLUMNS, [{**ROWS[0], "path": Path("p"), "tags": ("t",)}], Form.JSON, extra=1
    )
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": 1,
        "rows": [{**ROWS[0], "path": "p", "tags": ["t"]}],
        "extra": 1,
    }


def test_csv_reads_back_raw(capsys: pytest.CaptureFixture[str]) -> None:
    output.table("rows", COLUMNS, ROWS, Form.CSV)
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert found == [
        {"name": "a|b", "top1_error": "4.767", "note": ""},
        {"name": "größe_1", "top1_error": "", "note": "x & y"},
    ]


def test_a_narrow_terminal_leaves_out_what_is_empty_and_cuts_no_date(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgcctl.cli._ui.table_widths.room", lambda: 40)
    row = {"id": "20260101T000000Z-demo-0a1b2c", "model.gate_factor": 0.25,
           "started": "2026-11-27 10:15", "note": None}  # fmt: skip
    shown = [
        TableColumn(key, key if "." in key else "", right=key == "model.gate_factor") for key in row
    ]
    output.table("rows", shown, [row])
    printed = capsys.readouterr()
    assert printed.err == "", "an empty column is not missed"
    assert printed.out.splitlines() == [
        "                  model.",
        "id           gate_factor  started",
        "demo-0a1b2c         0.25  2026-11-27 10:15",
    ]


def test_a_column_of_zeros_that_is_left_out_is_told_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgcctl.cli._ui.table_widths.room", lambda: 12)
    shown = [TableColumn("name", whole=True), TableColumn("zeros", right=True, drop=1)]
    output.table("rows", shown, [{"name": "a_long_name", "zeros": 0}])
    assert "no room here for zeros" in capsys.readouterr().err


def test_what_one_types_is_never_cut_and_prose_stands_in_several_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgcctl.cli._ui.table_widths.room", lambda: 44)
    row = {"name": "imagenet_condensenet_h4", "meaning": "one two three four five six",
           "title": "left out"}  # fmt: skip
    shown = [TableColumn("name", whole=True), TableColumn("meaning", prose=True),
             TableColumn("title", drop=1)]  # fmt: skip
    output.table("rows", shown, [row, {**row, "meaning": "x" * 30}])
    printed = capsys.readouterr()
    assert printed.err == "no room here for title: a wider terminal or a pipe shows all\n"
    assert printed.out.splitlines() == [
        "name                     meaning",
        "imagenet_condensenet_h4  one two three four",
        "                         five six",
        "imagenet_condensenet_h4  xxxxxxxxx…xxxxxxxxx",
    ]
    monkeypatch.setattr("dgcctl.cli._ui.table_widths.room", lambda: None)
    output.table("rows", shown, [row])
    assert capsys.readouterr().out.splitlines()[1].endswith("one two three four five six  left out")


def test_csv_keeps_lists_and_joined_letters(capsys: pytest.CaptureFixture[str]) -> None:
    family = "\U0001f468\u200d\U0001f469"  # one sign of two, joined
    verb = "\u0645\u06cc\u200c\u062e\u0648"  # Persian, with a joiner between its parts
    row = {"tags": ["a", "b, c"], "note": f"{family} {verb} \x1b[2J \u202e", "empty": []}
    output.table("rows", [TableColumn(key) for key in row], [row], Form.CSV)
    (found,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert json.loads(found["tags"]) == ["a", "b, c"]
    assert json.loads(found["empty"]) == []
    assert found["note"] == f"{family} {verb} \\x1b[2J \\u202e"


def test_markdown_and_latex_escape(capsys: pytest.CaptureFixture[str]) -> None:
    output.table("rows", COLUMNS, ROWS, Form.MD)
    assert capsys.readouterr().out.splitlines() == [
        "| name | error | note |",
        "| --- | --: | --- |",
        "| a\\|b | 4.77 % |  |",
        "| größe_1 | - | x & y |",
    ]
    output.table("rows", COLUMNS, ROWS, Form.LATEX)
    shown = capsys.readouterr().out
    assert r"größe\_1 & - & x \& y \\" in shown
    assert r"a\textbar{}b & 4.77 \% &  \\" in shown
    assert shown.startswith("\\begin{tabular}{lrl}\n\\toprule\n")


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    output.table("rows", COLUMNS, [])
    assert capsys.readouterr().out == "name  error  note\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (90000, "1d01h"),
        (-5, "0s"),
    ],
)
def test_durations(value: float | None, expected: str) -> None:
    assert numbers.duration(value) == expected


def test_numbers_as_text() -> None:
    assert numbers.count(71037118) == "71,037,118"
    assert [numbers.short_count(value) for value in (None, 12, 1500, 71037118, 1.28e9)] == [
        "-",
        "12",
        "1.50 k",
        "71.04 M",
        "1.28 G",
    ]
    assert [numbers.size(value) for value in (None, 12, 2048, 3 << 20, 1 << 50)] == [
        "-",
        "12 B",
        "2.0 KiB",
        "3.0 MiB",
        "1024.0 TiB",
    ]
    assert numbers.percent(4.766) == "4.77 %"
    assert numbers.when(0) == "-"
    assert numbers.when(1_700_000_000) == "2023-11-14 22:13:20 UTC"


def test_paint_leaves_unknown_styles_and_empty_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "")
    assert diagnostics.paint("", "red", sys.stdout) == ""
    assert diagnostics.paint("x", "no such style", sys.stdout) == "x"
    assert diagnostics.paint("x", "red", sys.stdout) == "\x1b[31mx\x1b[0m"
