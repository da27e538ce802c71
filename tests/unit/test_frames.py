"""dgcctl.runs(...): runs and their curves as tables of pandas, without torch."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dgc
import dgcctl
from dgc.errors import UsageError
from dgc.run.events import EventKind, EventWriter, read_events
from dgcctl.cli.main import main
from tests.unit.run_factory import make_run
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="needs pandas")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of a recipe, and one of a script that logged what is no number."""
    runs = tmp_path / "runs"
    make_run(runs / "20260101T000000Z-demo-000001", "optim.lr=0.05")
    make_run(runs / "20260102T000000Z-demo-000002", "optim.lr=0.1", "tags=[study]")
    with dgc.run.start("own", {"lr": 0.2, "net": {"width": 32}}, runs_dir=runs) as run:
        run.log(1, loss=math.nan, lr=0.2)
        run.log(2, loss=math.inf, lr=0.1)
        run.evaluate(2, epoch=1, top1_error=25.0)
    return runs


def test_one_row_a_run_says_what_the_listing_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = dgcctl.runs("state=done", runs_dir=folder).frame()
    assert main(["runs", "ls", "state=done", "--json", "--runs-dir", str(folder)]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert len(table) == 3
    assert sorted(table["id"]) == sorted(row["id"] for row in listed)
    import pandas

    by_id = table.set_index("id")
    for row in listed:
        for key in ("state", "top1_error", "loss", "steps", "path"):
            found = by_id.loc[row["id"], key]
            assert (None if pandas.isna(found) else found) == row[key], key
        for key, value in row["config"].items():
            if isinstance(value, int | float | str):
                assert by_id.loc[row["id"], key] == value, key
    assert table["started"].dtype.kind == "M"
    assert list(table.columns)[:3] == ["id", "recipe", "state"]
    assert by_id.loc["20260102T000000Z-demo-000002", "tags"] == ["study"]


def test_it_filters_slices_and_tells_what_it_holds(folder: Path) -> None:
    found = dgcctl.runs("net.width=32 or lr=0.1", runs_dir=folder)
    assert len(found) == 2
    assert repr(found[1:]) == "<1 run: 20260102T000000Z-demo-000002>"
    assert [run.id for run in found] == [run.id for run in found[:]]
    assert len(dgcctl.runs("tag:study", runs_dir=folder).frame()) == 1
    with pytest.raises(UsageError, match="did you mean state"):
        dgcctl.runs("stat=done", runs_dir=folder)


def test_curves_hold_every_logged_figure_once(folder: Path) -> None:
    found = dgcctl.runs(runs_dir=folder)
    table = found.curves()
    for run in found:
        rows = table[table["run"] == run.id]
        logged = [event for event in read_events(run.dir) if event["kind"] == "step"]
        assert rows["step"].tolist() == [event["step"] for event in logged]
        if run.name == "demo":
            assert rows["loss"].tolist() == [event["loss"] for event in logged]
        else:
            assert math.isnan(rows["loss"].iloc[0])
            assert rows["loss"].iloc[1] == math.inf
            assert rows["lr"].tolist() == [0.2, 0.1]
    evaluations = found.curves("eval")
    assert 25.0 in evaluations["top1_error"].tolist()
    with pytest.raises(UsageError, match=r"curves\('x'\): should be one of epoch, eval, step"):
        found.curves("x")


def test_what_a_resume_computed_again_stands_once(folder: Path) -> None:
    (run,) = dgcctl.runs("name=own", runs_dir=folder)
    log = EventWriter(run.dir)
    log.append(EventKind.RESUME, step=1, closed=True, exact=True, differences=[])
    log.append(EventKind.STEP, step=2, epoch=0, loss=0.5, lr=0.1)
    log.close()
    table = dgcctl.runs("name=own", runs_dir=folder).curves()
    assert table["step"].tolist() == [1, 2]
    assert table["loss"].iloc[1] == 0.5


def test_no_runs_are_an_empty_table_and_a_missing_folder_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    nothing = dgcctl.runs(runs_dir=tmp_path / "empty")
    assert len(nothing.frame()) == 0
    assert list(nothing.curves().columns) == ["run", "step", "epoch", "t"]
    with pytest.raises(UsageError, match=r"no such folder \(runs_dir\)"):
        dgcctl.runs(runs_dir=tmp_path / "gone")
    monkeypatch.setenv("DGCCTL_RUNS_DIR", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"no such folder \(DGCCTL_RUNS_DIR\)"):
        dgcctl.runs()


def test_a_notebook_looks_where_commands_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "dgcctl.toml").write_text('runs_dir = "runs"\n')
    work = folder.parent / "notebooks"
    work.mkdir()
    monkeypatch.chdir(work)
    assert len(dgcctl.runs()) == 3
    assert "DGCCTL_RUNS_DIR" not in os.environ
    monkeypatch.setenv("DGCCTL_RUNS_DIR", str(work))
    assert len(dgcctl.runs()) == 0


PROGRAM = """
import sys
if sys.argv[2] == "without":
    sys.modules["pandas"] = None
import dgcctl
found = dgcctl.runs("state=done", runs_dir=sys.argv[1])
try:
    print(len(found.frame()), len(found.curves()) > 0)
except Exception as error:
    print(len(found), type(error).__name__, error)
assert not {"torch", "torchvision", "textual", "typer"} & set(sys.modules), sorted(sys.modules)
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("with", "3 True\n"),
        ("without", "3 UsageError a table needs pandas: pip install 'dgcctl[pandas]'\n"),
    ],
)
def test_it_loads_no_torch_and_says_what_is_missing(how: str, said: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )
    assert (done.returncode, done.stdout) == (0, said), done.stderr
