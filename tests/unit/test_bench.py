"""The side-by-side benchmark: rounds, ratios, and the report that the command prints."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from dgc.bench import __main__ as bench
from dgc.bench import cells, timing
from dgc.bench.inference_report import best_dense, markdown, runs
from dgc.bench.networks import NETWORKS
from dgc.bench.rows import BenchReport, parse_report
from dgc.kernels.cpu import library
from dgcctl.cli import main
from dgcctl.cli.bench import Network

needs_kernels = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)


def report_of(ms: dict[str, float], **beside: Any) -> BenchReport:
    """A report as it was written before there was one schema."""
    times = {
        name: {"median": value, "low": value, "high": value, "n": 7} for name, value in ms.items()
    }
    cell = {"network": "resnet18", "batch": 1, "threads": 1, "ms_per_image": times, "missing": {}}
    return parse_report({"cells": [cell], "layers": {}, **beside}, "inference", "here")


def a_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The benchmark's clock: it goes on only where a test says so."""
    now = [0.0]
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def test_a_short_call_is_timed_once_calls_of_its_kind_have_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = a_clock(monkeypatch)
    monkeypatch.setattr(timing, "WARM_S", 0.05)
    calls = []

    def slow_at_first() -> None:
        calls.append(clock[0])
        clock[0] += 0.02 if calls[-1] < 0.04 else 0.001

    assert timing._timed(slow_at_first) == pytest.approx(0.001)
    assert calls[-1] >= 0.05


def test_a_long_call_is_timed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = a_clock(monkeypatch)

    def long() -> None:
        clock[0] += 0.3

    assert timing._timed(long) == pytest.approx(0.3)
    assert clock[0] == pytest.approx(0.3)


def test_rounds_are_interleaved_and_at_least_seven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "REST_S", 0.0)
    monkeypatch.setattr(timing, "WARM_S", -1.0)
    order: list[str] = []
    found = timing.interleaved(
        {name: lambda name=name: order.append(name) for name in "ab"}, images=2, budget_s=0.0
    )
    assert order == list("ab") * 8  # the first of all is a warm-up
    assert found["a"].n == found["b"].n == 7


def test_the_report_holds_ratios_notes_and_states() -> None:
    state = {"kind": "pack", "1 thread": 1.0, "2 threads": 0.5, "2 threads, rested": 0.75}
    report = report_of(
        {"native": 10.0, "dense_eager": 30.0, "dense_compile": 20.0, "masked": 45.0},
        notes=["short here"],
        states={"resnet18": [state]},
    )
    (one,) = runs(report)
    assert best_dense(one) == ("dense_compile", 2.0)
    shown = markdown(report)
    assert (
        "| resnet18 | 1 | 1 | 10.00 | 30.00 | 20.00 | 45.00 | 7 | 3.00 | 2.00 (compile) | 4.50 |"
        in shown
    )
    assert "short here" in shown
    assert "| pack | 1.00 | 0.50 | 0.75 | 1.50 |\n| all | 1.00 | 0.50 | 0.75 | 1.50 |" in shown


@pytest.mark.skipif(not library.available(), reason="the kernels were not built: no C++ compiler")
def test_measuring_the_layers_prints_them_and_drops_notes_of_older_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inference.json"
    out.write_bytes(orjson.dumps({"cells": [], "layers": {}, "notes": ["of before"]}))
    assert bench.main(["--layers", "--network", "densenet86", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert shown == out.with_suffix(".md").read_text()
    assert "## densenet86: each convolution of the plan" in shown
    assert "## densenet86: where the time goes" in shown
    assert "of before" not in shown
    assert out.with_name("inference-roofline.png").stat().st_size > 1000


@needs_kernels
def test_the_command_prints_the_report_of_its_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inference.json"
    assert main.main(["bench", "--layers", "--network", "densenet86", "--out", str(out)]) == 0
    assert capsys.readouterr().out == out.with_suffix(".md").read_text()


@needs_kernels
def test_without_a_file_it_prints_what_it_measured_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["bench", "--layers", "--network", "densenet86"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# Inference: DGC against its dense twin")
    assert "Milliseconds per image" not in shown
    assert list(tmp_path.iterdir()) == []


def test_without_kernels_their_layers_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_open", lambda: (None, None, "not built: no C++ compiler"))
    out = tmp_path / "r.json"
    assert bench.main(["--layers", "--network", "densenet86", "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        "error: --layers: no native plan without the kernels: not built: no C++ compiler\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_none_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.main(["bench", "--network", "vgg"]) == 2
    told = capsys.readouterr().err
    assert "'vgg'" in told
    assert "'condensenet', 'resnet18', 'densenet86'" in told


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf"])
def test_a_budget_is_a_number_of_seconds(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["bench", f"--budget={seconds}"]) == 2
    assert capsys.readouterr().err == (
        f"error: --budget {seconds}: should be a number of seconds above 0, e.g. 60\n"
    )


def test_the_networks_of_the_command_are_those_of_the_benchmark() -> None:
    assert set(Network) == set(NETWORKS)


def test_a_measuring_process_that_fails_speaks_for_itself(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.json").write_text("no JSON")
    words = ["bench", "--network", "densenet86", "--out", str(tmp_path / "broken.json")]
    code = main.main(words)
    said = capfd.readouterr().err
    assert said.count("error: ") == 1, said
    assert f"{tmp_path / 'broken.json'}" in said
    assert code == 4


def test_a_kind_that_took_the_first_thread_no_time_has_no_ratio() -> None:
    """Its few items may all have been the other thread's."""
    state = {"kind": "linear", "1 thread": 0.01, "2 threads": 0.0, "2 threads, rested": 0.01}
    shown = markdown(report_of({"native": 10.0}, states={"resnet18": [state]}))
    assert "| linear | 0.01 | 0.00 | 0.01 |  |\n| all | 0.01 | 0.00 | 0.01 |  |" in shown


def test_without_onnx_the_engines_that_need_it_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They were a traceback: PyTorch says by an error of its own that onnx is missing."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    wanted = ["dense_eager", "dense_onnxruntime", "dense_openvino"]
    rows = cells.measure("densenet86", 1, 1, wanted, 0.05, machine="here", run="now")
    told = {row.name: row.why_not for row in rows}
    assert told["dense_eager"] is None
    for name in wanted[1:]:
        assert "is not installed (pip install 'dgcctl[bench]')" in str(told[name])


@pytest.mark.parametrize("script", ["int8_parts", "product_peaks", "busy_cores", "plan_files"])
def test_a_page_that_cannot_be_kept_is_said_before_anything_is_measured(
    script: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", [script, "--out", str(tmp_path / "file" / "page.md")])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"benchmarks.{script}").main()
    assert ended.value.code == 2
    assert "page.md cannot be written: " in capsys.readouterr().err
