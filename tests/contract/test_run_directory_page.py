"""docs/run-directory.md against the files of a real training, in both directions."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from dgc.kernels.cpu import library
from dgc.run.events import Kind, read_events
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.run.status import Status
from tests.unit.test_train_options import run_it

PAGE = Path(__file__).resolve().parents[2] / "docs" / "run-directory.md"
BY_DGCCTL = {"argv.json"}  # `dgcctl train` writes it, the trainer alone does not
OF_KERNELS = {"kernel_features", "kernels_built_from"}
OWN = {"kind", "t", "crc", "nonfinite"}


def sections() -> dict[str, str]:
    _head, *parts = PAGE.read_text(encoding="utf-8").split("\n## ")
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def rows(text: str) -> dict[str, str]:
    """What stands in the first cell of each row of a table -> the rest of the row."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            first, _, rest = line[2:].partition(" | ")
            found.update(dict.fromkeys(re.findall(r"`([^`]+)`", first), rest))
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return run_it(tmp_path_factory.mktemp("page") / "run")


def test_every_file_is_told(run: RunDir) -> None:
    told = {name.rstrip("/") for name in rows(sections()["The files"])}
    assert {path.name for path in run.path.iterdir() if not path.name.startswith(".")} <= told
    named = {prop.fget(run).name for prop in vars(RunDir).values() if hasattr(prop, "fget")
             and isinstance(prop.fget(run), Path)}  # fmt: skip
    assert named <= told


@pytest.mark.parametrize("name", sorted(set(sections()) - {"The files", "Events"} - BY_DGCCTL))
def test_every_field_of_a_file_is_told_and_no_other(run: RunDir, name: str) -> None:
    written = set(read_json(run.file(name))) - {"schema_version"}
    told = set(rows(sections()[name]))
    if name == "metrics.json":
        written |= {"top5_error"}
    if name == "env.json" and read_json(run.env)["kernels"] == "none":
        written |= OF_KERNELS
    assert written == told


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
    assert set(told) == {str(kind) for kind in Kind}
    for event in read_events(run):
        fields = set(re.findall(r"`([^`]+)`", told[event["kind"]]))
        assert set(event) - OWN <= fields, event["kind"]
        if event["kind"] in (Kind.STEP, Kind.EPOCH, Kind.PERF, Kind.CHECKPOINT):
            assert fields <= set(event), event["kind"]
