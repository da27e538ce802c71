"""docs/run-directory.md against the files of a real training, in both directions."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from dgc.kernels.cpu import library
from dgc.run.events import EventKind, read_events
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.run.status import Status
from tests.unit.test_cli_train import TINY
from tests.unit.test_train_options import run_it
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "run-directory.md"
OF_KERNELS = {"kernel_features", "kernels_built_from"}
OWN = {"kind", "t", "crc", "nonfinite"}
LAST = "checkpoints/step-000008"
# Section of the page -> the file of the run whose fields it tells.
FILES = {
    **{f"{name}.json": f"{name}.json" for name in (
        "recipe", "argv", "env", "git", "data", "model", "status", "last", "best", "metrics", "verdict",
    )},
    "gates/epoch-0001.json": "gates/epoch-0001.json",
    "MANIFEST.json of a checkpoint": f"{LAST}/MANIFEST.json",
    "state.json of a checkpoint": f"{LAST}/state.json",
    "structure.json of a checkpoint": f"{LAST}/structure.json",
}  # fmt: skip
TABLES = {"plots/train.csv", "plots/eval.csv"}


def sections() -> dict[str, str]:
    _head, *parts = PAGE.read_text(encoding="utf-8").split("\n## ")
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


# what only some recipes write: told, and in no run of the test's recipe
ONLY_SOME = {"train.ema_decay", "ema_top1_error", "ema_top5_error", "ema_loss"}


def rows(text: str, *, always: bool = False) -> dict[str, str]:
    """What stands in the first cell of each row of a table -> the rest of the row. `always`: only
    what each training writes.
    """
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, _, rest = line[2:].partition(" | ")
            if not (always and "(*)" in first):
                found.update(dict.fromkeys(re.findall(r"`([^`]+)`", first), rest))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """As `dgcctl train` makes and trains it."""
    folder = tmp_path_factory.mktemp("page")
    command = [sys.executable, "-m", "dgcctl", "train", "demo", *TINY, "expect=[{metric: top1_error,"
               " value: 50, tolerance: 60, source: a test}]"]  # fmt: skip
    env = {**os.environ, "DGCCTL_RUNS_DIR": str(folder / "runs"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=GUARD
    )
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "runs").iterdir()
    return RunDir(made)


def test_every_file_is_told(run: RunDir) -> None:
    files = sections()["The files"]
    there = {path.name for path in run.path.iterdir()}
    assert there <= {name.rstrip("/") for name in rows(files)}
    named = {value.name for name, value in vars(RunDir).items() if isinstance(value, property)
             for value in [getattr(run, name)] if isinstance(value, Path)}  # fmt: skip
    assert named <= {name.rstrip("/") for name in rows(files)}
    # what every run has: the lock's guard may be gone, as the lock is
    assert {name.rstrip("/") for name in rows(files, always=True)} - {".lock.guard"} <= there


def test_no_section_is_left_out() -> None:
    assert set(sections()) == {*FILES, *TABLES, "The files", "Events"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_field_of_a_file_is_told_and_no_other(run: RunDir, name: str) -> None:
    written = set(read_json(run.file(FILES[name]))) - {"schema_version"}
    if name == "env.json" and read_json(run.env)["kernels"] == "none":
        written |= OF_KERNELS
    assert written == set(rows(sections()[name], always=True))


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize(
    ("name", "field"),
    [("model.json", "layers"), ("verdict.json", "verdicts"), ("gates/epoch-0001.json", "layers")],
)
def test_every_column_of_its_rows_is_told(run: RunDir, name: str, field: str) -> None:
    row = orjson.loads(run.file(name).read_bytes())[field][0]
    assert set(row) == quoted(rows(sections()[name])[field])


def test_what_is_nested_is_told(run: RunDir) -> None:
    told = sections()
    head: dict[str, Any] = read_json(run.gates / "epoch-0001.json")["layers"][0]["heads"][0]
    assert set(head) == quoted(told["gates/epoch-0001.json"].partition("Of a head:")[2])
    assert set(read_json(run.data)["train"]) <= quoted(rows(told["data.json"])["train"])
    manifest = read_json(run.file(FILES["MANIFEST.json of a checkpoint"]))
    assert set(manifest["files"]["state.json"]) == quoted(
        rows(told["MANIFEST.json of a checkpoint"])["files"]
    )


@pytest.mark.parametrize("name", sorted(TABLES))
def test_the_columns_of_a_table_are_told_in_their_order(run: RunDir, name: str) -> None:
    told = re.findall(r"`([^`]+)`", sections()[name].partition(", as in")[0])
    assert run.file(name).read_text().splitlines()[0].split(",") == told


def test_without_kernels_their_fields_are_left_out_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation without a C++ compiler has none; here they are taken away."""
    monkeypatch.setattr(library, "load", lambda: None)
    written = set(read_json(run_it(tmp_path / "run").env)) - {"schema_version"}
    assert set(rows(sections()["env.json"])) - written == OF_KERNELS


def test_the_status_is_the_class_that_writes_it() -> None:
    assert set(rows(sections()["status.json"])) == {
        field.name for field in dataclasses.fields(Status)
    }


def test_every_kind_of_event_and_its_fields_are_told(run: RunDir) -> None:
    told = rows(sections()["Events"])
    assert set(told) == {str(kind) for kind in EventKind}
    for event in read_events(run):
        fields = quoted(told[event["kind"]])
        assert set(event) - OWN <= fields, event["kind"]
        if event["kind"] != EventKind.ALERT:
            assert fields - ONLY_SOME <= set(event), event["kind"]
