"""Finding and listing runs, and the filter language."""

from __future__ import annotations

import csv
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dgc.errors import TargetMissedError, UsageError
from dgc.recipe.load import (
    as_record,
    dump_recipe,
    find_recipe,
    flatten,
    load_recipe,
    shipped_recipes,
)
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, write_status
from dgcctl.cli import main
from dgcctl.cli._ui import summary
from dgcctl.core.runs import filter_values, filters, find, listing, record
from dgcctl.core.runs.recipe_values import read_values
from dgcctl.tui.state import run_facts, run_rows
from dgcctl.tui.state.store import Store
from dgcctl.tui.state.view import View


def small_run(
    folder: Path, name: str, *, state: str = "done", recipe: str = "", **metrics: Any
) -> RunDir:
    run = RunDir(folder / name)
    run.path.mkdir(parents=True)
    run.recipe.write_text(
        recipe or "name: demo\ntags: [demo, fast]\noptim:\n  lr: 0.1\ntrain:\n  epochs: 6\n"
    )
    write_status(
        run, Status(state=state, epoch=3, epochs=6, step=30, steps=60, started=time.time() - 60)
    )
    if metrics:
        write_json(run.metrics, metrics)
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_run(tmp_path, "20260101T000000Z-demo-aaa111", top1_error=20.0)
    small_run(
        tmp_path,
        "20260102T000000Z-c10_h4-bbb222",
        state="failed",
        recipe="name: c10_h4\noptim:\n  lr: 0.01\n",
    )
    small_run(tmp_path, "20260103T000000Z-my-own-ccc333", state="running", top1_error=10.0)
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file").write_text("x")
    return tmp_path


def test_runs_are_listed_newest_first_with_what_they_came_to(folder: Path) -> None:
    found = listing.list_runs(folder)
    assert [run.name for run in found] == ["my-own", "c10_h4", "demo"]
    assert [run.state for run in found] == ["running", "failed", "done"]
    row = found[2].row()
    assert (row["top1_error"], row["step"], row["steps"], row["epochs"]) == (20.0, 30, 60, 6)


@pytest.mark.parametrize(
    ("state", "how_far", "told"),
    [
        ("failed", {"epochs": 6, "steps": 60}, "failed (no step was made): a reason"),
        ("failed", {}, "failed (no step was made): a reason"),
        ("queued", {}, "queued (not started): a reason"),
        ("failed", {"epochs": 6, "epoch": 1, "steps": 60, "step": 12},
         "failed (epoch 1/6, step 12/60): a reason"),
        ("stopped", {"step": 1200}, "stopped (step 1,200): a reason"),
    ],
)  # fmt: skip
def test_how_far_a_run_is_says_no_number_that_nobody_knows(
    tmp_path: Path, state: str, how_far: dict[str, int], told: str
) -> None:
    run = small_run(tmp_path, "20260101T000000Z-demo-aaa111")
    write_status(run, Status(state=state, reason="a reason", **how_far))
    assert dict(summary.rows(run))["state"] == told
    cells = [cell if isinstance(cell, str) else cell[0] for cell in _cells(run)]
    assert not any(cell.endswith("/0") for cell in cells), cells


def _cells(run: RunDir) -> list[Any]:
    """Its row in the dashboard."""
    seen = listing.read_run(run)
    return list(run_rows.row(Store(View()), seen, time.time(), 120, wide=True).cells)


def test_an_absent_folder_holds_no_runs(tmp_path: Path) -> None:
    assert listing.list_runs(tmp_path / "none") == []
    (tmp_path / "file").write_text("")
    assert listing.list_runs(tmp_path / "file") == []


def test_a_running_run_whose_writer_is_gone_has_died(folder: Path) -> None:
    run = small_run(folder, "20260104T000000Z-demo-ddd444", state="running")
    status = json.loads(run.status.read_text())
    run.status.write_text(json.dumps({**status, "start_token": 1.0}))
    assert listing.read_run(run).state == "died"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema_version": 99}', '{"state": "odd"}', '{"state": 3}']
)
def test_a_damaged_status_is_listed_as_unreadable(folder: Path, content: str) -> None:
    run = small_run(folder, "20260104T000000Z-demo-ddd444")
    run.status.write_text(content)
    found = listing.list_runs(folder)[0]
    assert found.state == "unreadable"
    assert found.problem
    assert found.row()["reason"] == found.problem


# --- by name --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        "20260102T000000Z-c10_h4-bbb222",
        "20260102",
        "bbb222",
        "bbb",
        "c10_h4-bbb222",
        "c10_h4-b",
        "c10",
    ],
)
def test_a_run_is_found_by_id_and_by_unique_prefix(folder: Path, reference: str) -> None:
    assert find.find_run(reference, folder).id == "20260102T000000Z-c10_h4-bbb222"


def test_a_run_is_found_by_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "20260102T000000Z-c10_h4-bbb222"
    assert find.find_run(str(path), Path("/none")).path == path.resolve()
    monkeypatch.chdir(path)
    assert find.find_run(".", Path("/none")).id == path.name
    monkeypatch.chdir(folder)
    assert find.find_run(f"./{path.name}", Path("/none")).id == path.name
    assert find.find_run(path.name, Path("/none")).id == path.name


def test_latest_and_lists_have_one_order_when_a_run_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # of one second, whose ids say nothing of their order; and one that was planned before, and
    # begun after them, as trials are
    began = {"20260105T000000Z-own-fff": 0.2, "20260105T000000Z-own-000": 0.9}
    began |= {"20260105T000000Z-own-777": 0.5, "20260104T000000Z-own-aaa": 60.0}
    for at, (name, moment) in enumerate(began.items()):
        run = RunDir(tmp_path / name)
        run.path.mkdir()
        write_json(run.config, {"name": "own", "config": {}})
        write_status(run, Status(state=State.DONE, started=1767571200 + moment))
        os.utime(run.config, (at, at))
    wanted = sorted(began, key=lambda name: -began[name])
    assert find.find_run("latest", tmp_path).id == wanted[0]
    assert [run.id for run in listing.list_runs(tmp_path)] == wanted
    assert main.main(["runs", "ls", "--ids", "--runs-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == wanted
    (tmp_path / wanted[0]).rename(tmp_path.with_name(f"{tmp_path.name}-{wanted[0]}"))
    assert find.find_run("latest", tmp_path).id == wanted[1]


@pytest.mark.parametrize(
    ("reference", "line"),
    [
        (
            "2026",
            (
                "2026: 3 runs begin so (20260103T000000Z-my-own-ccc333,"
                " 20260102T000000Z-c10_h4-bbb222, "
            ),
        ),
        ("bbb223", "bbb223: no such run (did you mean bbb222?): see `dgcctl runs ls`"),
        (
            "zzzzzz",
            (
                "zzzzzz: no such run (the newest is 20260103T000000Z-my-own-ccc333): see `dgcctl"
                " runs ls`"
            ),
        ),
        ("./nothing", "nothing: there is no such folder: see `dgcctl runs ls`"),
        ("latst", "latst: no such run (did you mean latest?): see `dgcctl runs ls`"),
        (
            "demo-aaa112",
            "demo-aaa112: no such run (did you mean demo-aaa111?): see `dgcctl runs ls`",
        ),
    ],
)
def test_what_is_no_run_is_said_with_the_nearest(folder: Path, reference: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        find.find_run(reference, folder)
    assert str(caught.value).startswith(line)


def test_a_folder_that_is_not_there_is_said_with_the_nearest_beside_it(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find.find_run(folder / "20260101T000000Z-demo-aaa112", Path("/none"))
    wanted = f"(did you mean {folder / '20260101T000000Z-demo-aaa111'}?)"
    assert wanted in str(caught.value)
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="no run directory"):
        find.find_run(folder / "empty", Path("/none"))


def test_every_short_form_that_the_dashboard_shows_names_its_run(folder: Path) -> None:
    for run in listing.iterate(folder):
        assert find.find_run(run_facts.short_id(run.id), folder) == run


def test_a_short_name_of_several_runs_lists_them_in_one_line(folder: Path) -> None:
    other = small_run(folder, "20260105T000000Z-demo-abc555")
    with pytest.raises(UsageError) as caught:
        find.find_run("demo-a", folder)
    assert str(caught.value) == (
        f"demo-a: 2 runs begin so ({other.id}, 20260101T000000Z-demo-aaa111): give more of the id,"
        " or `latest`"
    )


def repetition(folder: Path, name: str, of: str, state: str = "done") -> RunDir:
    run = small_run(folder, name, state=state)
    write_json(run.file("rerun.json"), {"of": of, "path": str(folder / of)})
    return run


def test_latest_means_no_repetition(folder: Path) -> None:
    newest = find.find_run("latest", folder)
    repetition(folder, "20260106T000000Z-demo-eee666", "20260101T000000Z-demo-aaa111")
    repetition(folder, f"{newest.id[:16]}-demo-fff777", newest.id)
    assert find.find_run("latest", folder) == newest


def test_latest_of_repetitions_alone_is_the_newest_of_them(tmp_path: Path) -> None:
    repetition(tmp_path, "20260105T000000Z-demo-aaa111", "gone")
    newest = repetition(tmp_path, "20260106T000000Z-demo-eee666", "gone")
    assert find.find_run("latest", tmp_path) == newest


def test_ls_and_show_say_of_which_run_a_run_is_a_repetition(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["runs", "ls"]) == 0
    assert "repeats" not in capsys.readouterr().out
    of = "20260101T000000Z-demo-aaa111"
    again = repetition(here, "20260106T000000Z-demo-eee666", of)
    assert main.main(["runs", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "repeats"
    assert [line.split()[-1] == of for line in lines[1:]].count(True) == 1
    assert main.main(["runs", "ls", f"repeats={of}", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert (row["id"], row["repeats"]) == (again.id, of)
    assert main.main(["runs", "show", "eee666"]) == 0
    assert f"repeats  {of}\n" in capsys.readouterr().out


def test_an_empty_folder_says_how_to_make_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find.find_run("latest", tmp_path / "runs")
    expected = (
        "no runs here: `dgcctl train demo` makes one, --runs-dir or DGCCTL_RUNS_DIR names another"
    )
    assert str(caught.value) == f"{tmp_path / 'runs'}: {expected}"


# --- recipes, quickly -----------------------------------------------------------------------------


# written only where a recipe names a network or images that are not of this project, or another
# update rule than SGD
OF_ONES_OWN = (
    "model.args", "model.gate_factors", "model.reset", "model.convert", "data.args", "optim.betas", "optim.alpha", "optim.eps",
)  # fmt: skip


@pytest.mark.parametrize("name", shipped_recipes())
@pytest.mark.parametrize("recorded", [True, False], ids=["recipe.json", "an older run"])
def test_the_quick_reader_agrees_with_the_real_one(
    tmp_path: Path, name: str, recorded: bool
) -> None:
    recipe = load_recipe(find_recipe(name))
    run = RunDir(tmp_path)
    run.recipe.write_text(dump_recipe(recipe))
    if recorded:
        write_json(run.recipe_json, as_record(run.recipe))
    quick = read_values(run)
    for key, value in flatten(recipe):
        if key in ("origin", "expect") or (value is None and key not in quick):
            continue
        if key in OF_ONES_OWN and key not in quick:
            continue
        wanted = list(value) if isinstance(value, tuple) else value
        assert quick[key] == wanted, key
    assert not any(key.startswith(("origin", "expect")) for key in quick)


def test_an_edited_recipe_wins_over_the_record_beside_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.recipe.write_text(dump_recipe(load_recipe(find_recipe("demo"))))
    write_json(run.recipe_json, as_record(run.recipe))
    before = read_values(run)["optim.lr"]
    run.recipe.write_text(run.recipe.read_text().replace(f"lr: {before}", "lr: 7.5"))
    assert (before != 7.5, read_values(run)["optim.lr"]) == (True, 7.5)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1]", b'{"schema_version": 99}', b'{"recipe": []}', b"\0\xff"]
)
def test_a_damaged_record_of_the_recipe_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    run = RunDir(tmp_path)
    run.recipe.write_text("name: demo\n")
    run.recipe_json.write_bytes(damage)
    assert read_values(run) == {"name": "demo"}


@pytest.mark.parametrize("text", ["a: &x 1", "a: *x", "a: !!int 1", "- a", "a: [", "\x07", ""])
def test_a_recipe_that_is_none_has_no_values(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path)
    run.recipe.write_text(text)
    assert read_values(run) == {}


# --- filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["my-own", "c10_h4", "demo"]),
        ("lr>0.05", ["my-own", "demo"]),
        ("optim.lr<=0.01", ["c10_h4"]),
        ("optim.lr=1e-2", ["c10_h4"]),
        ("state=done", ["demo"]),
        ("state==done", ["demo"]),
        ("state!=done", ["my-own", "c10_h4"]),
        ("tag:demo", ["my-own", "demo"]),
        ("tag:dem", []),
        ("name~MY", ["my-own"]),
        ("bbb", ["c10_h4"]),
        ("lr>0.05 top1_error<15 state=running", ["my-own"]),
        ("top1_error>=10", ["my-own", "demo"]),
        ("top1_error=null", ["c10_h4"]),
        ("top1_error!=null", ["my-own", "demo"]),
        ("epochs=6 age<300", ["my-own", "c10_h4", "demo"]),
        ("state=failed or top1_error<15", ["my-own", "c10_h4"]),
        ("state=failed OR state=done lr>1", ["c10_h4"]),
        ("state=failed,done", ["c10_h4", "demo"]),
        ("lr>0.05 and state=done", ["demo"]),
        ("state=done AND lr>1 || state=failed", ["c10_h4"]),
        ("not state=done", ["my-own", "c10_h4"]),
        ("not tag:demo", ["c10_h4"]),
        ("lr>0.05 and not not state=done", ["demo"]),
        ("tags=demo", ["my-own", "demo"]),
        ("tag=other,demo", ["my-own", "demo"]),
        ("tag!=demo", ["c10_h4"]),
        ("age<5 minutes", ["my-own", "c10_h4", "demo"]),
        ("age>2hours or state=done age < 5min".replace(" < ", "<"), ["demo"]),
        ("lr=0.005..0.01", ["c10_h4"]),
        ("lr!=0.005..0.01", ["my-own", "demo"]),
        ('name~"my-"', ["my-own"]),
        ("age<5m", ["my-own", "c10_h4", "demo"]),
        ("age>2w", []),
        ("started>2020-01-31", ["my-own", "c10_h4", "demo"]),
        ("started<2020-01-31T10:00", []),
        (f"host={socket.gethostname()}", ["my-own", "c10_h4", "demo"]),
        (f"owner={getpass.getuser()}", ["my-own", "c10_h4", "demo"]),
    ],
)
def test_filters(folder: Path, text: str, expected: list[str]) -> None:
    found = filters.select(listing.list_runs(folder), filters.parse_filter(text))
    assert [run.name for run in found] == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "lr>",
            "filter term 'lr>': write key=value (or != > >= < <= ~), tag:name, or a part of an id",
        ),
        ("lr>>3", "filter term 'lr>>3': write key=value"),
        ("lr<abc", "filter: 'abc' is no number, so nothing is < it"),
        ("=3", "filter term '=3': write key=value"),
        ("a|b", "filter term 'a|b': write key=value"),
        ("state=done or", "filter 'state=done or': `or` stands between two filters"),
        ("name='x", 'filter "name=\'x": a quote is not closed'),
        ("name=DEMO", "filter: no run has name=DEMO (did you mean demo?)"),
        ("epochs=six", "filter: epochs is a number in all runs, and 'six' is none"),
        ("lr=0.1..x", "filter: '0.1..x' is no range: write it as 0.01..0.1"),
        (
            "started=2026-13-45",
            "filter: '2026-13-45' is no date: write 2026-11-27, 2026-11-27T10:15",
        ),
        ("started>27/11/2026", "filter: '27/11/2026' is no date: write 2026-11-27"),
        ("started<yesterday", "filter: 'yesterday' is no date (write 2026-11-27 or"),
        ("started=2026-11-20..x", "filter: '2026-11-20..x' is no range: write it as 2026-11-20..2"),
        ("lr=0.1..0.01", "filter: '0.1..0.01' is empty: the smaller end goes first"),
        (
            "epochs=[6,7]",
            "filter: epochs is a number in all runs, and '[6,7]' is none: write epochs=6,7",
        ),
        ("tag:Demo", "filter: no run has the tag Demo (did you mean tag:demo?)"),
        ("tag=Demo", "filter: no run has the tag Demo (did you mean tag:demo?)"),
        ("state=done and", "filter 'state=done and': `and` stands between two, and one is missing"),
        ("and lr=1", "filter 'and lr=1': `and` stands between two"),
        ("state=done and or lr=1", "filter 'state=done and or lr=1': `and` stands between two"),
        ("state=done not", "filter 'state=done not': `not` stands before a term"),
        ("lr in 0.1,0.2", "filter: 'in' is no word of it: write e.g. lr=0.1,0.2"),
        (
            "state=finished",
            "filter: no run can be finished (states: queued, running, done, failed, stopped, died,"
            " unreadable)",
        ),
        ("state!=stoped", "filter: no run can be stoped (did you mean stopped? states: queued, "),
        ("lrr>0.1", "filter: no run has a key lrr (did you mean lr?)"),
        (
            "zzzz=1",
            (
                "filter: no run has a key zzzz (keys are columns and recipe keys, e.g. state,"
                " epoch, optim.lr)"
            ),
        ),
    ],
)
def test_mistakes_in_filters(folder: Path, text: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        filters.select(listing.list_runs(folder), filters.parse_filter(text))
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["state=failed or top1_error<15", "lr>0.05"], ["my-own"]),
        (["lr>0.05", "state=failed or top1_error<15"], ["my-own"]),
        (["state=failed", "or", "state=done", "lr>1"], ["c10_h4"]),
        (
            ["state=failed or state=done", "lr<1", "or", "top1_error<15"],
            ["my-own", "c10_h4", "demo"],
        ),
        (["not", "state=done", "and", "lr<0.05"], ["c10_h4"]),
        ([], ["my-own", "c10_h4", "demo"]),
    ],
)
def test_each_argument_is_a_filter_by_itself(
    folder: Path, arguments: list[str], expected: list[str]
) -> None:
    found = filters.select(listing.list_runs(folder), filters.parse_filters(arguments))
    assert [run.name for run in found] == expected


@pytest.mark.parametrize(
    "arguments", [["or", "lr>1"], ["lr>1", "and"], ["lr>1", "not"], ["not", "lr>1 or state=done"]]
)
def test_a_word_between_arguments_needs_both(arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=r"`(or|and|not)` stands b"):
        filters.parse_filters(arguments)


def test_a_key_of_two_sections_must_be_whole() -> None:
    with pytest.raises(UsageError) as caught:
        filters.resolve_key("batch_size", {"train.batch_size": 1, "eval.batch_size": 2})
    assert (
        str(caught.value)
        == "filter: batch_size can be train.batch_size or eval.batch_size: give the whole key"
    )


def test_numbers_compare_as_numbers_and_texts_as_texts() -> None:
    assert filter_values.compare(10, ">", "9")
    assert not filter_values.compare("10", ">", "9")
    assert filter_values.compare(True, "=", "true")
    assert not filter_values.compare(None, ">", "0")
    assert filter_values.compare(0.1, "=", "0.10")


NOON = datetime(2026, 11, 27, 12, 30, 15, 500_000, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("sign", "word", "holds"),
    [
        ("=", "2026-11-27", True), ("=", "2026-11-26", False), ("!=", "2026-11-27", False),
        ("=", "2026-11-27T12:30", True), ("=", "2026-11-27T12:31", False),
        ("=", "2026-11-27T12:30:15Z", True), ("=", "2026-11-27T12:30:16", False),
        ("=", "2026-11-25..2026-11-27", True), ("=", "2026-11-27..2026-11-28", True),
        ("=", "2026-11-20..2026-11-26", False), ("=", "2026-11-26,2026-11-27", True),
        (">", "2026-11-27", False), (">", "2026-11-26", True), (">=", "2026-11-27", True),
        ("<", "2026-11-27", False), ("<=", "2026-11-27", True), ("<=", "2026-11-26", False),
        ("<", "2026-11-28", True), (">", "2026-11-27T12:29", True),
    ],
)  # fmt: skip
def test_a_date_is_the_whole_day(sign: str, word: str, holds: bool) -> None:
    assert filter_values.compare(NOON, sign, word, "started") is holds


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("state=done", True), ("tag:x", True), ("or", True), ("lr>1", True), ("demo", False),
     ("demo lr>1", True), ("not tag:x", True), ("and", True), ("./runs/a=b", False),
     ("20260101T000000Z-demo-aaa111", False), ("./runs/x", False), ("latest", False)],
)  # fmt: skip
def test_a_word_with_an_operator_is_a_filter(word: str, wanted: bool) -> None:
    assert filters.is_filter(word) is wanted


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DGCCTL_RUNS_DIR", str(folder))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("DGCCTL_VERBOSITY", "0")
    return folder


def test_ls_prints_a_table_and_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["runs", "ls", "--sort", "top1_error"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["run", "state", "epoch"]
    assert [line.split()[0][-6:] for line in lines[1:]] == ["ccc333", "aaa111", "bbb222"]
    assert main.main(["runs", "ls", "state=done", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema_version"] == 1
    assert [row["id"] for row in shown["runs"]] == ["20260101T000000Z-demo-aaa111"]
    assert main.main(["runs", "ls", "-n", "2", "--csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_ls_says_what_it_did_not_find(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["runs", "ls", "state=stopped"]) == 0
    assert capsys.readouterr() == ("", f"no runs in {here} match\n")
    assert main.main(["runs", "ls", "--sort", "colour"]) == 2
    assert capsys.readouterr().err == "error: --sort colour: no run has such a key\n"
    for given, said in (("", "no key"), ("-", "no key")):
        assert main.main(["runs", "ls", "--sort", given]) == 2
        assert capsys.readouterr().err.startswith(f"error: --sort: names {said}: write e.g.")
    assert main.main(["runs", "ls", "--columns", " ,"]) == 2
    assert capsys.readouterr().err.startswith("error: --columns: names no column: write e.g. ")


def test_ls_shows_the_columns_that_were_asked_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lines(*words: str) -> list[str]:
        assert main.main(["runs", "ls", *words]) == 0
        return capsys.readouterr().out.splitlines()

    head, *rows = lines("--columns", "lr,top1_error,state", "--sort", "-lr")
    assert head.split() == ["run", "lr", "top-1", "error", "state"]
    assert [row.split()[1] for row in rows] == ["0.1", "0.1", "0.01"]
    assert lines("--ids", "lr<0.05") == ["20260102T000000Z-c10_h4-bbb222"]
    row = next(csv.DictReader(lines("--csv", "--sort", "top1_error")))
    assert (row["config.optim.lr"], row["host"]) == ("0.1", socket.gethostname())
    (shown,) = json.loads("\n".join(lines("--json", "lr=0.01")))["runs"]
    assert shown["config"]["optim.lr"] == 0.01
    (narrow,) = json.loads("\n".join(lines("--json", "lr=0.01", "--columns", "lr")))["runs"]
    assert narrow["optim.lr"] == 0.01
    # as the tables call them
    assert lines("--columns", "run,took", "--sort", "took")[0].split() == ["run", "took"]
    assert len(lines("--ids", "took<1h")) == 3
    assert lines("--ids", "run~ccc333") == ["20260103T000000Z-my-own-ccc333"]
    assert main.main(["runs", "ls", "--columns", "lrr"]) == 2
    assert (
        capsys.readouterr().err
        == "error: --columns lrr: no run has such a key (did you mean lr?)\n"
    )


def test_a_key_may_be_that_of_runs_which_are_not_shown(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_key = listing.list_runs(here)[-1]
    write_json(with_key.dir.metrics, {"accuracy": 0.5})
    for words in (["--columns", "accuracy", "-n", "1"], ["--sort", "accuracy", "state=running"]):
        assert main.main(["runs", "ls", *words]) == 0, words
    assert capsys.readouterr().out.splitlines()[0].split() == ["run", "accuracy"]


def test_a_moment_is_read_as_one_and_where_is_a_filter(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["runs", "ls", "--columns", "started,macs_dense", "-w", "state=done"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["run", "started"]
    assert re.search(r"aaa111 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", row)
    assert main.main(["runs", "ls", "--columns", "started", "--csv", "state=done"]) == 0
    float(capsys.readouterr().out.splitlines()[1].split(",")[1])


def test_a_filter_where_one_run_is_meant(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["note", "lr<0.2", "x"], ["show", "lr<0.2"], ["tail", "lr<0.2"]):
        assert main.main(["runs", *words]) == 2
        assert capsys.readouterr().err == (
            "error: lr<0.2: is a filter, and one run is meant here: `dgcctl runs ls 'lr<0.2'` lists"
            " those that fit\n"
        )


def test_commands_take_filters_where_they_take_runs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["runs", "rm", "state=failed", "or", "top1_error=20", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "would move 20260101T000000Z-demo-aaa111, 20260102T000000Z-c10_h4-bbb222" in said
    assert main.main(["runs", "rm", "state=stopped", "--dry-run"]) == 2
    assert "no run fits state=stopped" in capsys.readouterr().err


def test_show_prints_state_result_and_next_commands(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(here / "20260101T000000Z-demo-aaa111")
    row = {
        "metric": "top1_error",
        "value": 20.0,
        "expected": 22.0,
        "tolerance": 1.5,
        "source": "ours",
        "passed": True,
    }
    write_json(run.verdict, {"verdicts": [row]})
    write_json(
        run.model,
        {"parameters": 68490, "macs": {"dense": 8166666, "promised": 5305566, "executed": 5305566}},
    )
    assert main.main(["runs", "show", "aaa111"]) == 0
    shown = capsys.readouterr().out
    assert "top-1 error     20.00 %, expected 22.00 ± 1.50 % (ours): reached\n" in shown
    assert "MACs, dense     8,166,666  of the same network without gates\n" in shown
    assert f"where           {run.path}\n" in shown
    assert f"next            dgcctl eval --run {run.id}\n" in shown
    assert main.main(["runs", "show", "aaa111", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["verdicts"] == [row]
    assert document["recipe"]["optim.lr"] == 0.1

    # the target was measured on all images, and this figure on some
    with run.recipe.open("a") as recipe:
        recipe.write("data:\n  limit_val: 1500\n")
    write_json(run.data, {"val": {"samples": 1500}})
    assert main.main(["runs", "show", "aaa111"]) == 0
    told = "20.00 % on 1,500 images, expected 22.00 ± 1.50 % (ours): reached\n"
    assert told in capsys.readouterr().out
    write_json(run.verdict, {"verdicts": [{**row, "value": 30.0, "passed": False}]})
    with pytest.raises(TargetMissedError, match=r"is 30\.00 % on 1,500 images, above 22\.00"):
        summary.check(run)


def test_commands_that_follow_trust_what_is_trusted_now_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = "name: own\nmodel:\n  name: python:mine.nets:build\n"
    runs = [small_run(tmp_path, f"r-{s}", state=s, recipe=recipe) for s in ("done", "failed")]
    said = [summary.next_commands(listing.read_run(run)) for run in runs]
    assert not any("trust" in line for lines in said for line in lines)
    monkeypatch.setenv("DGCCTL_TRUST_CODE", "mine,other")
    done, failed = (summary.next_commands(listing.read_run(run)) for run in runs)
    assert [line.endswith(" --trust-code mine") for line in done] == [True, True, False]
    assert failed[0] == f"dgcctl resume {runs[1].path} --trust-code mine"
    # the run's own recipe: the one it was made from has not the values of the command line
    assert done[1] == f"dgcctl profile {runs[0].recipe} --trust-code mine"


def test_stop_leaves_a_request_and_refuses_where_nothing_runs(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["runs", "stop", "ccc333"]) == 0
    assert (here / "20260103T000000Z-my-own-ccc333" / "control" / "stop").exists()
    assert "asked run 20260103T000000Z-my-own-ccc333 to save and stop" in capsys.readouterr().err
    assert main.main(["runs", "stop", "aaa111"]) == 2
    wanted = (
        "error: run 20260101T000000Z-demo-aaa111 is done, not running: there is nothing to stop\n"
    )
    assert capsys.readouterr().err == wanted


def test_stop_latest_means_the_newest_run_that_is_running_a_repetition_too(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training, name = "20260103T000000Z-my-own-ccc333", "20260103T000000Z-demo-eee666"
    again = repetition(here, name, "20260101T000000Z-demo-aaa111", state="running")
    done = repetition(here, "20260107T000000Z-demo-fff777", training)
    assert main.main(["runs", "stop", "latest"]) == 0
    assert f"asked run {name} to save and stop" in capsys.readouterr().err
    write_status(again, Status(state="stopped"))
    assert main.main(["runs", "stop"]) == 0
    assert f"asked run {training} to save and stop" in capsys.readouterr().err
    assert not (done.path / "control").exists()
    write_status(RunDir(here / training), Status(state="done"))
    assert main.main(["runs", "stop", "latest"]) == 2
    assert capsys.readouterr().err == (
        f"error: no run in {here} is running: there is nothing to stop\n"
    )


COUNTED = """
import atexit, os, runpy, sys
from pathlib import Path
folder = sys.argv[sys.argv.index("--runs-dir") + 1]
opened = []
sys.addaudithook(lambda event, found: event == "open" and opened.append(str(found[0])))
def tell():
    bytes_read = next(iter(Path("/proc/self/io").read_text().splitlines())).split()[1]
    print(bytes_read, *(path for path in opened if path.startswith(folder)), file=sys.stderr)
atexit.register(tell)
runpy.run_module("dgcctl", run_name="__main__", alter_sys=True)
"""


def listing_effort(folder: Path, *filters: str) -> tuple[int, list[str], list[str]]:
    """What `runs ls` costs in a process of its own: bytes read, files opened in the folder; and the
    lines that it prints.
    """
    words = ["runs", "ls", "--runs-dir", str(folder), *filters]
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *words], capture_output=True, text=True, check=True
    )
    read, *opened = done.stderr.split()
    return int(read), opened, done.stdout.splitlines()


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_record_is_the_same_from_recipe_json_and_from_the_file(tmp_path: Path, name: str) -> None:
    """`compare` reads the quick one; what it compares must not depend on that."""
    run = RunDir(tmp_path)
    run.recipe.write_text(dump_recipe(load_recipe(find_recipe(name))))
    slow = record.recipe_of(run)
    write_json(run.recipe_json, as_record(run.recipe))
    assert record.recipe_of(run) == slow == record.flat_recipe(run.recipe)
    spoiled = as_record(run.recipe)
    spoiled["recipe"]["seed"] = "\x1b[2J"
    write_json(run.recipe_json, spoiled)
    assert record.recipe_of(run) == slow, "what a record says is checked, then the file is read"
    older = as_record(run.recipe)
    del older["recipe"]["train"]["backend"], older["recipe"]["eval"]["every_epochs"]
    write_json(run.recipe_json, older)
    assert record.recipe_of(run) == slow, "keys that came later have their defaults"
    ran = as_record(run.recipe)
    ran["recipe"]["train"]["accumulate"] = 7  # which no batch size of the recipes is a multiple of
    write_json(run.recipe_json, ran)
    told = record.recipe_of(run)
    assert told["train.accumulate"] == 7, (
        "what ran is shown, also where a check of today refuses it"
    )
    write_json(run.recipe_json, as_record(run.recipe))
    run.recipe.write_text(run.recipe.read_text().replace("seed: 0", "seed: 7"))
    assert record.recipe_of(run)["seed"] == 7, "recipe.json is of another file now"


@pytest.mark.parametrize(
    "words",
    [
        ["optim.name=adamw", "optim.momentum=0.0", "optim.nesterov=false"],
        ["optim.name=rmsprop", "optim.nesterov=false", "optim.alpha=0.95"],
        ["optim.clip_grad_norm=1.5", "optim.warmup_epochs=2", "model.init=/w.pt"],
    ],
)
def test_other_recipes_are_the_same_both_ways_too(tmp_path: Path, words: list[str]) -> None:
    run = RunDir(tmp_path)
    run.recipe.write_text(dump_recipe(load_recipe(find_recipe("demo"), words)))
    slow = record.flat_recipe(run.recipe)
    write_json(run.recipe_json, as_record(run.recipe))
    assert record.recipe_of(run) == slow


def test_a_listing_reads_the_small_files_of_each_run_once(tmp_path: Path) -> None:
    """What a thousand runs cost is a count: each file is asked for and read at most once, nothing
    that grows with a training (log, events, checkpoints, plots), and nothing the second time.
    """
    recipe = dump_recipe(load_recipe(find_recipe("demo")))
    few, many = tmp_path / "few", tmp_path / "many"
    model = small_run(few, "20260101T999999Z-demo-ffffff", recipe=recipe, top1_error=1.0)
    write_json(model.recipe_json, as_record(model.recipe))
    for large in (model.log, model.events, model.file("plots/train.csv"), model.file("argv.json")):
        large.parent.mkdir(exist_ok=True)
        large.write_text("x" * 100_000)
    more = 200
    shutil.copytree(few, many)
    for index in range(more):  # copies without the fsyncs of a writer
        shutil.copytree(model.path, many / f"20260101T{index:06d}Z-demo-{index:06x}")
    before, _, _ = listing_effort(few, "lr>0.05", "tag:demo")
    after, opened, lines = listing_effort(many, "lr>0.05", "tag:demo")
    assert len(lines) == 1 + more + 1
    assert max(Counter(opened).values()) == 2, "asked for, and read"
    small = [model.status, model.metrics, model.recipe, model.recipe_json]
    # rerun.json and labels.json, which most runs have not, are not even opened where absent
    assert {Path(path).name for path in opened} == {path.name for path in small}
    size = sum(path.stat().st_size for path in small)
    assert (after - before) / more <= size + 100, "bytes read for one more run"
    time.sleep(2.1)  # what changed just now is not remembered
    assert listing_effort(many, "lr>0.05", "tag:demo")[2] == lines
    _, opened, again = listing_effort(many, "lr>0.05", "tag:demo")
    assert (opened, again) == ([], lines), "remembered"


def test_states_are_those_of_the_record() -> None:
    assert set(listing.RESUMABLE) == set(State) - {State.RUNNING, State.DONE}
