"""Commands that print a table print it for other programs too; processes answer at once here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgcctl.cli import bench, data, doctor, main
from dgcctl.cli import eval as evaluation
from dgcctl.core.diagnosis import Finding, Level
from dgcctl.core.launch import query
from tests.unit.run_factory import make_run

Said = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _here(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"x")


def answer(monkeypatch: Patch, module: Any, **found: Any) -> None:
    monkeypatch.setattr(module, "query", lambda *_, **__: found)


def printed(said: Said, *words: str, code: int = 0) -> list[str]:
    assert main.main(list(words)) == code
    return said.readouterr().out.splitlines()


def test_eval_prints_a_row_of_figures_or_one_for_each_class(
    monkeypatch: Patch, capsys: Said
) -> None:
    figures: dict[str, Any] = {
        "top1_error": 5.0,
        "samples": 40,
        "macs": {"dense": 3000, "promised": 100, "executed": 120},
        "expected": [],
    }
    answer(monkeypatch, evaluation, **figures)
    words = ("eval", "--checkpoint", "w.safetensors")
    assert printed(capsys, *words, "--csv") == [
        "name,samples,top1_error,top5_error,images_per_s,macs_dense,macs_promised,macs_executed",
        "w.safetensors,40,5.0,,,3000,100,120",
    ]
    assert printed(capsys, *words, "--md")[2] == (
        "| w.safetensors | 40 | 5.00 % | - | - | 3,000 | 100 | 120 |"
    )
    classes = [{"name": "a cat", "samples": 20, "top1_error": 2.5}]
    answer(monkeypatch, evaluation, **figures, per_class=classes)
    table = printed(capsys, *words, "--per-class", "--csv")
    assert table == ["name,samples,top1_error", "a cat,20,2.5"]


def test_predict_prints_a_row_for_each_answer_and_channels_only_where_they_are_wanted(
    monkeypatch: Patch, capsys: Said
) -> None:
    image = {
        "path": "a.jpg",
        "classes": [{"name": "cat", "probability": 0.75}, {"name": "dog", "probability": 0.25}],
        "layers": [{"name": "conv", "in_channels": 4, "heads": [[0, 1]]}],
    }
    answer(monkeypatch, query, images=[image], unreadable=[])  # it looks there when it asks
    words = ("predict", "--checkpoint", "w.safetensors", "a.jpg")
    assert printed(capsys, *words, "--csv") == [
        "image,rank,name,probability",
        "a.jpg,1,cat,0.75",
        "a.jpg,2,dog,0.25",
    ]
    assert "conv" in " ".join(printed(capsys, *words))
    assert "conv" in " ".join(printed(capsys, *words, "--channels"))
    bare = " ".join(printed(capsys, *words, "--no-channels"))
    assert "cat" in bare
    assert "conv" not in bare


def test_data_verify_prints_what_cannot_be_used(monkeypatch: Patch, capsys: Said) -> None:
    half = {"samples": 1, "sha256": "0", "digest_of": "content"}
    found = {"name": "image_folder", "dir": "d", "classes": 1, "train": half, "val": half}
    answer(monkeypatch, data, **found, bad=[{"file": "val/a.jpg", "reason": "cut off"}])
    table = printed(capsys, "data", "verify", "image_folder", "--data-dir", "d", "--csv", code=3)
    assert table == ["file,reason", "val/a.jpg,cut off"]


def test_doctor_prints_its_findings(monkeypatch: Patch, capsys: Said) -> None:
    monkeypatch.setattr(
        doctor, "examine", lambda *_, **__: [Finding(name="disk", level=Level.OK, value="big")]
    )
    assert printed(capsys, "doctor", "--md") == ["| level | what | found |", "| --- | --- | --- |", "| ok | disk | big |"]  # fmt: skip


def test_a_plan_files_timing_has_every_form_and_a_benchmark_keeps_a_file(
    monkeypatch: Patch, capsys: Said, tmp_path: Path
) -> None:
    row = {"threads": 1, "batch": 1, "median": 2.0, "low": 1.0, "high": 3.0, "n": 5}
    timed = {"rows": [row], "load_ms": 1.0, "first_ms": 2.0, "resident_mb": None}
    monkeypatch.setattr(bench, "_output_of", lambda *_: json.dumps(timed))
    (tmp_path / "m.dgc").write_bytes(b"x")
    assert printed(capsys, "bench", "--plan", "m.dgc", "--csv") == [
        "threads,batch,median,low,high,n",
        "1,1,2.0,1.0,3.0,5",
    ]
    assert json.loads("\n".join(printed(capsys, "bench", "--plan", "m.dgc", "--json")))["rows"] == [
        row
    ]
    assert main.main(["bench", "--csv"]) == 2
    assert "--csv goes with --plan; else --out FILE" in capsys.readouterr().err


def test_a_repetition_and_a_recipes_reasons_have_every_form(capsys: Said, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / "runs" / f"20260101T000000Z-demo-{name * 6}")
    table = printed(capsys, "rerun", "aaaaaa", "--against", "bbbbbb", "--csv")
    assert table[0] == "metric,recorded,repeated,tolerance,within"
    assert len(table) > 1
    assert all(row.endswith(",True") for row in table[1:])
    assert printed(capsys, "recipes", "show", "demo", "--csv")[:2] == [
        "key,value,why",
        "name,demo,",
    ]
