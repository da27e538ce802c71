"""The command that says of which parts a step on a GPU is made: the parts are the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import gpu_parts
from tests.gpu_parts import PartsCase, in_parts, named, rows

SMALL = PartsCase("resnet18", 2, "bf16")


@pytest.mark.parametrize("form", ["dense", "dgc"])
def test_the_parts_are_the_whole_and_nine_tenths_have_a_name(form: str) -> None:
    found = in_parts(SMALL, form, 0.9)
    table = rows(found).values()
    assert sum(sum(row[:2]) for row in table) == found.launches.total()
    assert sum(sum(row[2:]) for row in table) == found.bytes
    assert named(found) >= 0.9


def test_what_no_rule_names_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_parts, "_BY_PLACE", ())
    assert named(in_parts(SMALL, "dgc", 0.9)) < 0.9


def test_the_command_prints_and_keeps_a_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu_parts.CASES, "resnet18-bf16", SMALL)
    assert gpu_parts.main(["--case", "resnet18-bf16", "--json", str(tmp_path / "parts.json")]) == 0
    said = capsys.readouterr().out
    for word in ("gather, mask", "kept for backward", "as a graph: the host launches", "triton"):
        assert word in said
    assert json.loads((tmp_path / "parts.json").read_text())["resnet18-bf16"]["dgc"]
