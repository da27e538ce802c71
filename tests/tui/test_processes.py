"""CPU, memory and GPU of a process, as the dashboard's process sees them; and the thread that
looks.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.run.paths import RunDir
from dgcctl.core import numbers
from dgcctl.tui.state.poller import Catalogue, Disk, Listed, Poller, Sampled, best_of_curve
from dgcctl.tui.state.processes import Sample, Sampler
from tests.tui import synthetic
from tests.tui.synthetic import Spec


def test_a_process_is_summed_with_its_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        found = Sampler()(os.getpid())
        assert found is not None
        assert found.processes >= 2
        assert found.rss > 10 << 20
        assert 0 <= found.host_memory <= 100
    finally:
        child.kill()
        child.wait()


def test_a_process_that_is_gone_has_no_sample() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert Sampler()(child.pid) is None


@pytest.mark.parametrize(("says", "expected"), [("37\n91\n", 64.0), ("[N/A]\n", None), ("", None)])
def test_the_gpu_is_what_nvidia_smi_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, expected: float | None
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = Sampler()(os.getpid())
    assert found is not None
    assert found.gpu == expected


def test_sizes_are_binary() -> None:
    assert [numbers.rough_size(value) for value in (None, 0, 1023, 1024, 812 << 20, 1010 << 20, 3 << 40)] == [
        "-", "0 B", "1023 B", "1 KiB", "812 MiB", "1010 MiB", "3 TiB",
    ]  # fmt: skip


def news_of(poller: Poller, told: list[object], now: float) -> list[object]:
    told.clear()
    while poller.tick(now):
        pass
    return list(told)


def test_a_look_at_unchanged_runs_brings_no_news(tmp_path: Path) -> None:
    spec = Spec(now_step=100, state="running", pid=os.getpid())
    run = synthetic.make(tmp_path, spec)
    told: list[object] = []
    same = Sample(1.0, 1, 1, 1.0, 1.0)
    poller = Poller(
        Catalogue(tmp_path),
        told.append,
        interval=0.1,
        sample=lambda pid: same,
        free_bytes=lambda path: 1 << 40,
    )
    kinds = {type(news) for news in news_of(poller, told, 100.0)}
    assert {Listed, Sampled, Disk} < kinds
    assert news_of(poller, told, 200.0) == []
    synthetic.advance(run, spec, 120)
    assert any(isinstance(news, Listed) for news in news_of(poller, told, 300.0))


def test_a_finished_run_is_followed_only_while_it_is_looked_at(tmp_path: Path) -> None:
    run = synthetic.make(tmp_path, Spec())
    told: list[object] = []
    poller = Poller(
        Catalogue(tmp_path),
        told.append,
        interval=0.1,
        sample=lambda pid: None,
        free_bytes=lambda path: 0,
    )
    assert not any(getattr(news, "parts", None) for news in news_of(poller, told, 100.0))
    poller.watch([RunDir(run.path)])
    assert any(getattr(news, "parts", None) for news in news_of(poller, told, 100.1))


def test_the_best_error_comes_from_the_curve(tmp_path: Path) -> None:
    file = tmp_path / "eval.csv"
    assert best_of_curve(file) is None
    for content, expected in (
        ("epoch,top1_error\n", None),
        ("epoch,top1_error\n1,9.5\n2,8.5\n3,9\n", 8.5),
        ("a,b\n1,2\n", None),
    ):
        file.write_text(content)
        assert best_of_curve(file) == expected
    file.write_text("epoch,top1_error\n1,9.5\n2")
    assert best_of_curve(file) is None, "a torn file is none"
