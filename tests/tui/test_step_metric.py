"""A metric of the step is declared in one place, and is then in the log, on the screen, in the CSV
and in the report.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from dgc.run import metrics
from dgc.run.events import EventKind, read_events
from dgc.run.metrics import StepMetric
from dgc.run.paths import RunDir
from dgcctl.core.report.build import write_report
from dgcctl.core.runs.record import read_record
from tests.tui import frames
from tests.tui.test_run_screen import chart, ready
from tests.unit.test_train_options import run_it

MINE = StepMetric(
    "weight_norm",
    "norm of weights",
    column=lambda step: step.once(
        torch.linalg.vector_norm(torch.stack([p.norm() for p in step.module.parameters()]))
    ),
    chart=3,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A real training with one row more in the table, and nothing else changed."""
    monkeypatch.setattr(metrics, "STEP_METRICS", (*metrics.STEP_METRICS, MINE))
    folder = tmp_path / "runs" / "20261126-120000-tiny-abc001"
    folder.parent.mkdir()
    return run_it(folder, ("log_every: 3", "log_every: 2"))


async def test_a_new_metric_is_one_row(run: RunDir, tmp_path: Path) -> None:
    logged = [event for event in read_events(run) if event["kind"] == EventKind.STEP]
    values = [event["weight_norm"] for event in logged]
    assert len(values) == 8
    assert all(math.isfinite(value) and value > 1 for value in values)
    assert len(set(values)) == 8, "the weights move at each step"

    with (run.path / "plots" / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["weight_norm"]) for row in rows] == values[1::2]

    async with frames.opened(run.path.parent, (160, 50), open=("abc001",)) as (dash, pilot):
        await ready(pilot)
        drawn = chart(dash, "norm of weights")
        assert drawn.spec.traces[0].y.tolist() == values
        assert "norm of weights" in frames.text(dash)

    page = tmp_path / "report.html"
    write_report([read_record(run)], page)
    assert "norm of weights" in page.read_text()


def test_what_is_not_for_readers_stays_with_the_trainer() -> None:
    assert {m.name for m in metrics.STEP_METRICS} - {m.name for m in metrics.logged()} == {
        "wrong", "bad", "grad_norm",
    }  # fmt: skip


def test_names_are_told_once() -> None:
    for table in (metrics.STEP_METRICS, metrics.EVAL_FIELDS):
        names = [row.name for row in table]
        assert len(set(names)) == len(names)


def test_tables_are_what_older_readers_expect() -> None:
    """The order too: files are compared line by line."""
    assert metrics.train_columns() == ("step", "epoch", "lr", "loss", "error", "inactive")
    assert metrics.eval_columns() == ("step", "epoch", "top1_error", "top5_error", "loss")
    assert [m.name for m in metrics.logged()] == [
        "progress", "lr", "loss", "cross_entropy", "gate_l1", "error", "inactive",
    ]  # fmt: skip
