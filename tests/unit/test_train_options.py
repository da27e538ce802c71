"""Each switch of the recipe through the real trainer, in this process; and what a training writes
besides.
"""

import csv
import json
import os
import subprocess
import sys

import pytest

from dgc.errors import RecipeError, UsageError
from dgc.run.events import EventKind, read_events
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.run.status import State, read_status, write_status
from dgc.train.main import run_training
from dgc.train.session import Options
from dgc.train.signals import Signals
from dgcctl.core.runs.listing import read_run
from tests.faults.training import RECIPE, ROOT


def run_it(folder, *changes: tuple[str, str]) -> RunDir:
    text = RECIPE.replace("epochs: 3", "epochs: 3, max_steps: 8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(text)
    run = RunDir(folder)
    run_training(run, Options(), Signals())
    return run


def losses(run: RunDir) -> list[float]:
    return [event["loss"] for event in read_events(run) if event["kind"] == EventKind.STEP]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> RunDir:
    return run_it(tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ("channels_last: true", 1e-3),
        ("dtype: float64", 1e-3),
        ("deterministic: false", 1e-3),
        ("accumulate: 1", 0.0),
        pytest.param("compile: true", 1e-2, marks=pytest.mark.slow),
    ],
)
def test_switches_train_the_same_to_begin_with(options, tolerance, plain, tmp_path):
    """Three steps at n = 0 agree up to rounding; then top-k may choose otherwise."""
    run = run_it(tmp_path / "run", ("log_every: 3", f"log_every: 3, {options}"))
    assert len(losses(run)) == 8
    for mine, theirs in zip(losses(run)[:3], losses(plain)[:3], strict=True):
        assert mine == pytest.approx(theirs, rel=tolerance, abs=0)


def test_accumulation_sees_other_batch_statistics(plain, tmp_path):
    """Half the batch a time: BatchNorm normalises each half by itself, so losses are near and not
    equal.
    """
    found = losses(run_it(tmp_path / "run", ("log_every: 3", "log_every: 3, accumulate: 2")))
    assert found[0] == pytest.approx(losses(plain)[0], rel=0.2)
    assert found != losses(plain)


@pytest.mark.parametrize("form", ["dense", "sgc"])
def test_twins_train(form, tmp_path):
    run = run_it(tmp_path / "run", ("stem: cifar", f"stem: cifar, form: {form}"))
    steps = [event for event in read_events(run) if event["kind"] == EventKind.STEP]
    assert {(row["inactive"], row["gate_l1"]) for row in steps} == {(0, 0.0)}


def test_multistep(tmp_path):
    run = run_it(tmp_path / "run", ("lr: 0.05", "lr: 0.05, schedule: multistep, milestones: [1]"))
    rates = [event["lr"] for event in read_events(run) if event["kind"] == EventKind.STEP]
    assert rates == pytest.approx([0.05] * 6 + [0.005] * 2)


def test_every_file_of_the_contract(plain):
    names = (
        "recipe.yaml env.json git.json argv.json data.json model.json status.json events.jsonl"
        " metrics.json last.json"
    )
    names += (
        " best.json log.txt verdict.json plots/train.csv plots/eval.csv gates/epoch-0001.json"
        " gates/epoch-0002.json"
    )
    assert [name for name in names.split() if not plain.file(name).is_file()] == []
    assert sorted(path.name for path in plain.checkpoints.iterdir()) == [
        "step-000006",
        "step-000008",
    ]
    status = read_status(plain)
    assert (status.state, status.exit_code, status.step, status.steps, status.epoch) == (
        State.DONE,
        0,
        8,
        8,
        2,
    )
    kinds = {event["kind"] for event in read_events(plain)}
    assert {"start", "step", "epoch", "eval", "perf", "gates", "checkpoint", "end"} <= kinds


def test_gate_map(plain):
    """The last map agrees with what the layer may have on at most."""
    found = read_json(plain.gates / "epoch-0002.json")
    assert (found["epoch"], found["step"]) == (2, 8)
    assert len(found["layers"]) == 3
    for layer in found["layers"]:
        assert layer["n_inactive"] > 0
        assert 0 < layer["promised_macs"] < layer["dense_macs"]
        assert len(layer["heads"]) == 4
        for head in layer["heads"]:
            allowed = 1 - layer["n_inactive"] / layer["in_channels"]
            assert 0 < head["active_share"] <= allowed + 1e-12
            assert 0 <= head["entropy"] <= 1
            assert [share for _, share in head["most"]] == sorted(
                (s for _, s in head["most"]), reverse=True
            )
            assert head["least"][0][1] <= head["most"][-1][1]


def test_metrics_and_curves(plain):
    metrics, model = read_json(plain.metrics), read_json(plain.model)
    evals = [event for event in read_events(plain) if event["kind"] == EventKind.EVAL]
    assert metrics["top1_error"] == evals[-1]["top1_error"]
    end = model["macs_at_end_of_schedule"]
    assert metrics["macs_executed"] > end["executed"]  # max_steps ends it before its pruning does
    assert (metrics["macs_dense"], metrics["macs_promised"]) == (end["dense"], end["promised"])
    assert metrics["parameters"] == model["parameters"]
    assert evals[-1]["samples"] == 30
    with (plain.file("plots") / "train.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [3, 6]
    with (plain.file("plots") / "eval.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [6, 8]


def test_verdict(tmp_path):
    expect = "expect: [{metric: top1_error, value: 100, tolerance: 0, source: nobody}, "
    expect += "{metric: top5_error, value: 0, tolerance: 0.5, source: nobody}]\nseed: 3"
    run = run_it(tmp_path / "run", ("seed: 3", expect))
    found = read_json(run.verdict)["verdicts"]
    assert [row["passed"] for row in found] == [True, False]
    assert found[0]["value"] == read_json(run.metrics)["top1_error"]


def test_environment(plain):
    env = read_json(plain.env)
    assert env["torch"]["version"]
    assert env["world_size"] == 1
    assert env["determinism"]["algorithms"] is True
    assert "numpy" in env["packages"]
    assert json.loads(plain.data.read_text())["train"]["samples"] == 44


def test_what_cannot_be(tmp_path):
    with pytest.raises(RecipeError, match=r"train\.batch_size"):
        run_it(tmp_path / "a", ("log_every: 3", "log_every: 3, accumulate: 3"))
    with pytest.raises(
        UsageError, match=r"train\.device = cuda, but torch sees no CUDA device here"
    ):
        run_it(tmp_path / "b", ("device: cpu", "device: cuda"))


def test_a_resumed_run_began_when_it_was_first_started(plain):
    before = read_status(plain)
    run_training(plain, Options(resume=True), Signals())
    after = read_status(plain)
    assert after.started == before.started
    assert after.heartbeat > before.heartbeat
    assert after.state == State.DONE


def test_a_run_that_was_stopped_for_a_day_did_not_take_a_day(plain):
    """Twice, and what a listing shows is what it ran."""
    day = 24 * 3600.0
    for stops in (1, 2):
        status = read_status(plain)
        status.started, status.heartbeat = status.started - day, status.heartbeat - day
        write_status(plain, status)
        run_training(plain, Options(resume=True), Signals())
        after = read_status(plain)
        assert round(after.paused / day) == stops
        assert round(after.seconds / day) == 0
        assert read_run(plain).row()["seconds"] == after.seconds


def test_waiting_threads_sleep_early_unless_the_user_says_otherwise() -> None:
    """GNU OpenMP reads this when torch is loaded, so nothing may have loaded it before."""
    code = (
        "import os, sys, dgc.train.__main__ as m; m.wait_politely(os.environ); print('torch' in"
        " sys.modules, end=' ')"
    )
    code += "; print(os.environ.get('GOMP_SPINCOUNT'))"

    def said(**env: str) -> str:
        clean = {
            key: value
            for key, value in os.environ.items()
            if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
        }
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**clean, **env},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert said() == "False 1000"
    assert said(GOMP_SPINCOUNT="7") == "False 7"
    assert said(OMP_WAIT_POLICY="active") == "False None"
