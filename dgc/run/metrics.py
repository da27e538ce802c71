"""What is measured, declared once: the figures of each training step, and those of an evaluation.

Trainer, log, CSV, dashboard and report all read these two tables. A new metric of the step is one
row of STEP_METRICS: it is then computed, logged, written to plots/train.csv, drawn live and shown
in the report. No torch here: a row's functions are handed tensors, and the manager never calls
them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

# --- a training step ------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepInfo:
    """What the host knows of a step before the device has computed it."""

    step: int
    epoch: int
    batch: int
    progress: float
    lr: float
    inactive: int
    samples: int
    gate_weight: float


@dataclass(frozen=True)
class StepMetric:
    """One figure of each step. `name` is its key in the log and in tables;
    `title` stands over its chart.

    `column` makes a scalar tensor of a dgc.train.step.StepTensors on each rank; it stays on the
    device, and is added up over the ranks. `value` makes the figure of what the host knows and of
    all columns by name; without it the figure is the sum of its own column.
    """

    name: str
    title: str
    column: Callable[[Any], Any] | None = None
    value: Callable[[StepInfo, Mapping[str, float]], float] | None = None
    logged: bool = True
    csv: bool = True
    chart: int | None = 99  # its place among the charts that are shown unasked; None: on request
    report: str | None = ""  # what the report calls it; "" as `title`, None: not there
    smooth: bool = True  # false for what is set, not measured

    def of(self, info: StepInfo, columns: Mapping[str, float]) -> float:
        return columns[self.name] if self.value is None else self.value(info, columns)


STEP_METRICS: tuple[StepMetric, ...] = (
    StepMetric(
        "progress",
        "progress",
        value=lambda info, _: info.progress,
        csv=False,
        chart=None,
        report=None,
        smooth=False,
    ),
    StepMetric("lr", "learning rate", value=lambda info, _: info.lr, chart=4, smooth=False),
    StepMetric(
        "loss",
        "loss",
        value=lambda info, sums: sums["cross_entropy"] + info.gate_weight * sums["gate_l1"],
        chart=1,
        report="training loss",
    ),
    StepMetric(
        "cross_entropy",
        "cross-entropy",
        column=lambda step: step.cross_entropy,
        csv=False,
        chart=None,
        report=None,
    ),
    StepMetric(
        "gate_l1",
        "gate L1",
        column=lambda step: step.gate_l1,
        csv=False,
        chart=None,
        report=None,
    ),
    StepMetric(
        "error",
        "batch %",
        value=lambda info, sums: 100 * sums["wrong"] / info.samples,
        chart=2,
        report="top-1 error on training batches, %",
    ),
    StepMetric(
        "inactive",
        "inactive channels",
        value=lambda info, _: info.inactive,
        chart=5,
        report=None,  # the report draws it as a share
        smooth=False,
    ),
    # for the trainer alone: what the epoch's figures and the report of a divergence are made of
    StepMetric("wrong", "wrong answers", column=lambda step: step.wrong, logged=False),
    StepMetric(
        "bad",
        "not finite",
        column=lambda step: step.bad,
        value=lambda _, sums: sums["bad"] > 0,
        logged=False,
    ),
    StepMetric(
        "grad_norm", "gradient norm", column=lambda step: step.once(step.grad_norm), logged=False
    ),
)

# the columns that say where a row of train.csv or eval.csv belongs
PLACE = ("step", "epoch")


def logged() -> list[StepMetric]:
    """Those that are in the log, in its order."""
    return [metric for metric in STEP_METRICS if metric.logged]


def train_columns() -> tuple[str, ...]:
    """The header of plots/train.csv."""
    return (*PLACE, *(metric.name for metric in logged() if metric.csv))


def charts() -> list[StepMetric]:
    """Those that the dashboard draws unasked, in its order."""
    shown = [metric for metric in logged() if metric.chart is not None]
    return sorted(shown, key=lambda metric: metric.chart or 0)


def reported() -> list[tuple[StepMetric, str]]:
    """Those that the report draws, in its order, and what it calls them."""
    # those without a chart of their own come last, in the table's order (sorted is stable)
    shown = [metric for metric in logged() if metric.report is not None]
    ordered = sorted(shown, key=lambda metric: 99 if metric.chart is None else metric.chart)
    return [(metric, metric.report or metric.title) for metric in ordered]


# --- an evaluation --------------------------------------------------------------------------------


@dataclass(frozen=True)
class EvalField:
    """One figure of an evaluation. `csv`: in plots/eval.csv. `result`: in metrics.json, the result
    of a run, by which runs are compared. `always`: false for what only some recipes ask for, which
    has a column only where there is a figure.
    """

    name: str
    title: str
    unit: str = ""
    csv: bool = True
    result: bool = True
    always: bool = True


EVAL_FIELDS: tuple[EvalField, ...] = (
    EvalField("top1_error", "top-1 error", "%"),
    EvalField("top5_error", "top-5 error", "%"),  # left out where there are five classes or fewer
    EvalField("loss", "loss"),
    EvalField("samples", "images", csv=False, result=False),
    EvalField("ema_top1_error", "top-1 error, averaged weights", "%", always=False),
    EvalField("ema_top5_error", "top-5 error, averaged weights", "%", always=False),
    EvalField("ema_loss", "loss, averaged weights", always=False),
)

RESULTS: tuple[str, ...] = tuple(field.name for field in EVAL_FIELDS if field.result)
ALWAYS: tuple[str, ...] = tuple(f.name for f in EVAL_FIELDS if f.result and f.always)


def eval_columns(found: Collection[str] = ()) -> tuple[str, ...]:
    """The header of plots/eval.csv, whose rows have the figures `found`."""
    shown = (field for field in EVAL_FIELDS if field.csv and (field.always or field.name in found))
    return (*PLACE, *(field.name for field in shown))
