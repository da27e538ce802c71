"""A script that is started again goes on with its run, from its own checkpoint; and what it saved is
a network that others can start from.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import dgc
from dgc.errors import ArgumentError, IntegrityError
from dgc.run import checkpoint_store, script_checkpoint
from dgc.run.events import live_rows, read_events
from dgc.run.files import read_json
from dgcctl.cli.main import main
from dgcctl.core.runs import listing
from tests.unit.test_script_runs import ROOT, script
from tests.waiting import GUARD

__all__ = ["script"]  # a fixture

# a loop with AdamW, a schedule and dropout, whose run is killed after its sixth step
LOOP = """
import os, signal, sys
import torch
import dgc
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3))
optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
with dgc.run.start("loop", {"lr": 0.05}, steps=9, runs_dir=sys.argv[1], resume=True) as run:
    first = 1
    if run.saved is not None:
        net.load_state_dict(run.saved.weights)
        optimizer.load_state_dict(run.saved.state["optimizer"])
        schedule.load_state_dict(run.saved.state["schedule"])
        torch.set_rng_state(run.saved.state["random"])
        first = run.saved.step + 1
    for step in range(first, 10):
        images = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        loss = net(images).logsumexp(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        run.log(step, loss=loss.item(), lr=schedule.get_last_lr()[0])
        if step % 4 == 0:
            run.evaluate(step, top1_error=float(step))
            run.checkpoint(net, state={
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "random": torch.get_rng_state(),
            })
        if step == int(sys.argv[2]):
            run.evaluate(step, top1_error=99.0)
            os.kill(os.getpid(), signal.SIGKILL)
    print(run.id)
"""


def loop(runs: Path, killed_at: int) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", LOOP, str(runs), str(killed_at)]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD
    )


def rows(run: listing.Run) -> list[Mapping[str, Any]]:
    counted = live_rows(read_events(run.dir))
    return [{key: row.get(key) for key in ("kind", "step", "loss", "lr")} for row in counted]


def test_killed_and_started_again_it_is_one_run_with_the_same_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loop(tmp_path / "whole", 0).returncode == 0
    died = loop(tmp_path / "runs", 6)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (run,) = listing.list_runs(tmp_path / "runs")
    assert (run.state, run.metrics["top1_error"]) == ("died", 99.0)
    again = loop(tmp_path / "runs", 0)
    assert (again.returncode, again.stdout.strip()) == (0, run.id), again.stderr
    (run,) = listing.list_runs(tmp_path / "runs")
    (whole,) = listing.list_runs(tmp_path / "whole")
    assert rows(run) == rows(whole)
    # of the evaluation that was given up nothing is left
    assert (run.state, run.status.step, run.metrics["top1_error"]) == ("done", 9, 8.0)
    assert "resumed from step 4" in run.dir.log.read_text()
    # a run that is done is none to go on with
    other = loop(tmp_path / "runs", 0).stdout.strip()
    assert other != run.id
    at = ["--runs-dir", str(tmp_path / "runs")]
    assert main(["runs", "verify", run.id, *at]) == 0, capsys.readouterr()
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert main(["report", run.id, "-o", str(page), *at]) == 0
    assert "resumed 1 time" in page.read_text()
    assert "exactly" not in page.read_text()


def test_another_config_begins_another_run(tmp_path: Path) -> None:
    def begin(lr: float, name: str = "own") -> str:
        with dgc.run.start(name, {"lr": lr}, runs_dir=tmp_path, resume=True) as run:
            run.log(1, loss=1.0)
            run.stop()
        return run.id

    first = begin(0.1)
    assert begin(0.2) != first
    assert begin(0.1, "other") != first
    assert begin(0.1) == first
    # nothing was saved: it starts from its beginning, and its one step stands once
    (run,) = (run for run in listing.list_runs(tmp_path) if run.id == first)
    assert [row["step"] for row in rows(run)] == [1]


def test_a_run_that_goes_on_now_is_left_alone(tmp_path: Path) -> None:
    one = dgc.run.start("own", runs_dir=tmp_path)
    other = dgc.run.start("own", runs_dir=tmp_path, resume=True)
    assert other.id != one.id
    assert other.saved is None
    for run in (one, other):
        run.finish()


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    given = {
        "tensors": {0: torch.arange(3), "half": torch.ones(2, dtype=torch.bfloat16)},
        "betas": (0.9, 0.999),
        "list": [1, None, True, "x", float("inf")],
        "nothing": {},
    }
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        run.checkpoint(nn.Linear(2, 2), step=3, state=given)
        run.stop()
    with dgc.run.start("own", runs_dir=tmp_path, resume=True) as run:
        assert run.saved is not None
        found = run.saved.state
    assert list(found) == list(given)
    assert torch.equal(found["tensors"][0], torch.arange(3))
    assert found["tensors"]["half"].dtype is torch.bfloat16
    assert {key: found[key] for key in ("betas", "list", "nothing")} == {
        key: given[key] for key in ("betas", "list", "nothing")
    }


def test_what_is_no_plain_state_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        with pytest.raises(ArgumentError, match=r"state.rule is a function: give tensors"):
            run.checkpoint(nn.Linear(2, 2), state={"rule": lambda: 0})
        with pytest.raises(ArgumentError, match=r"state.x: \(1, 2\) is no text"):
            run.checkpoint(nn.Linear(2, 2), state={"x": {(1, 2): 3}})
    assert not checkpoint_store.list_checkpoints(run.dir)


def test_a_state_that_was_changed_is_refused(tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        folder = run.checkpoint(nn.Linear(2, 2), step=1)
        run.stop()
    (folder / script_checkpoint.SCRIPT_FILE).write_text("{}")
    with pytest.raises(IntegrityError, match="no checkpoint is whole"):
        dgc.run.start("own", runs_dir=tmp_path, resume=True)
    files = {"model.safetensors": safetensors.torch.save({}), "script.json": b'{"state": {"x": 1}}'}
    checkpoint_store.commit(run.dir, 2, files)
    with pytest.raises(IntegrityError, match=r"script.json: is no state of a script"):
        dgc.run.start("own", runs_dir=tmp_path, resume=True)


def own_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def test_a_converted_network_brings_its_structure(tmp_path: Path) -> None:
    net = own_network()
    dgc.convert(net, torch.randn(1, 3, 16, 16), heads=4, gate_factor=0.5)
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        folder = run.checkpoint(net)
    told = json.loads((folder / "structure.json").read_text())
    again = dgc.rebuild(own_network(), told)
    again.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(again.eval()(images), net.eval()(images))


def test_a_killed_script_is_known_by_its_log(tmp_path: Path) -> None:
    """Its status is as old as its last heartbeat, some seconds."""
    text = """
import os, signal, sys, dgc
run = dgc.run.start("dead", steps=100, runs_dir=sys.argv[1])
for step in range(1, 31):
    run.log(step, loss=1.0, acc=step / 100, epoch=step // 10)
os.kill(os.getpid(), signal.SIGKILL)
"""
    words = [sys.executable, "-c", text, str(tmp_path)]
    subprocess.run(words, cwd=ROOT, check=False, timeout=GUARD)
    (run,) = listing.list_runs(tmp_path)
    assert (run.state, run.status.step, run.status.epoch) == ("died", 30, 3)
    assert run.values["acc"] == 0.3


def test_numbers_that_json_has_none_for_are_told_apart_and_found_again(tmp_path: Path) -> None:
    for clip in (math.inf, math.nan, None, 1.0):
        with dgc.run.start("own", {"clip": clip}, runs_dir=tmp_path, resume=True) as run:
            run.log(1, loss=1.0)
            run.stop()
    assert len(listing.list_runs(tmp_path)) == 4
    with dgc.run.start("own", {"clip": math.inf}, runs_dir=tmp_path, resume=True) as again:
        assert read_json(again.dir.config)["config"] == {"clip": "inf"}
    assert len(listing.list_runs(tmp_path)) == 4


def test_steps_of_checkpoints_do_not_go_back(tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        run.checkpoint(nn.Linear(2, 2), step=10)
        with pytest.raises(ArgumentError, match="step 5: one of step 10 is saved already"):
            run.checkpoint(nn.Linear(2, 2), step=5)
        with pytest.raises(ArgumentError, match=r"step=-1\) is no whole number from 0 on$"):
            run.checkpoint(nn.Linear(2, 2), step=-1)
        with pytest.raises(ArgumentError, match=r"log\(-1\) is no whole number from 0 on"):
            run.log(-1, loss=1.0)
        run.checkpoint(nn.Linear(2, 2), step=10)


def test_checkpoints_that_are_gone_are_missed(tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        shutil.rmtree(run.checkpoint(nn.Linear(2, 2), step=10))
        run.stop()
    with pytest.raises(IntegrityError, match=r"are gone .* without resume=True a new run begins"):
        dgc.run.start("own", runs_dir=tmp_path, resume=True)


def test_what_happens_at_a_start_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: Path
) -> None:
    runs = tmp_path / "runs"
    for change in ("", "# other"):
        script.write_text(RESUMING + change)
        words = [sys.executable, str(script), str(runs)]
        done = subprocess.run(
            words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            check=True, timeout=GUARD,
        )  # fmt: skip
        (run,) = listing.list_runs(runs)
        if not change:
            assert done.stderr == (
                f"dgc.run: no run of this name and config to go on with: {run.id} begins\n"
            )
    assert done.stderr.splitlines() == [
        f"dgc.run: goes on with {run.id} from step 1",
        "dgc.run: the code has changed since this run began; its record keeps the first",
    ]
    assert "the code has changed since" in run.dir.log.read_text()


RESUMING = """
import sys, torch, dgc
with dgc.run.start("own", runs_dir=sys.argv[1], resume=True) as run:
    run.checkpoint(torch.nn.Linear(2, 2), step=1)
    run.stop()
"""


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ([1], "state is a list: give a mapping"),
        (torch.ones(2), "state is a Tensor: give a mapping"),
        ({"x": torch.eye(3).to_sparse()}, "state.x is a tensor that is sparse"),
        ({"x": torch.empty(2, device="meta")}, "state.x is a tensor that is sparse, quantized or"),
        ({"x": np.ones(2)}, r"state.x is a ndarray: .*torch.from_numpy"),
    ],
)
def test_states_that_no_file_holds_are_one_line(state: Any, said: str, tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        with pytest.raises(ArgumentError, match=said):
            run.checkpoint(nn.Linear(2, 2), state=state)
        loop: dict[str, Any] = {}
        loop["loop"] = loop
        with pytest.raises(ArgumentError, match="state holds itself"):
            run.checkpoint(nn.Linear(2, 2), state=loop)


def test_numbers_of_numpy_and_counters_come_back(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])
    state = {"n": np.int64(3), "yes": np.bool_(True), "schedule": schedule.state_dict()}
    with dgc.run.start("own", {"n": np.int64(3)}, runs_dir=tmp_path) as run:
        run.checkpoint(net, state=state)
        run.stop()
    with dgc.run.start("own", {"n": 3}, runs_dir=tmp_path, resume=True) as run:
        assert run.saved is not None
        assert (run.saved.state["n"], run.saved.state["yes"]) == (3, True)
        schedule.load_state_dict(run.saved.state["schedule"])
        optimizer.step()
        schedule.step()


def test_other_arguments_that_cannot_be_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="name is a NoneType: give a text"):
        dgc.run.start(None, {}, runs_dir=tmp_path)  # type: ignore[arg-type]
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        with pytest.raises(ArgumentError, match="bytes of a PNG"):
            run.image("a", "a.png")  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="level is 'bogus': give one of info, warning"):
            run.note("x", "bogus")
        run.log(1, big=10**30)
