"""The one writer of an evaluation: into the log of events, the curves, metrics.json, the state that
checkpoints hold, log.txt, and at the end of a run verdict.json. What its fields are is said in
dgc.run.metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgc.layers.macs import Complexity
from dgc.recipe.load import Recipe
from dgc.run.files import write_json
from dgc.run.metrics import EVAL_FIELDS, RESULTS
from dgc.train import costs
from dgc.train.evaluation import Figures
from dgc.train.session import Session


def record_evaluation(session: Session, figures: Figures) -> None:
    """Write down the evaluation that closes the present epoch."""
    row = evaluation_row(session.position.epoch + 1, session.position.step, figures)
    # before anything is written: a run that is killed in here evaluates again when it is resumed
    session.progress.last_eval = row  # goes into the next checkpoint's state.json
    session.recorder.evaluation(row)
    session.recorder.write_curves()
    write_result(session)
    averaged = figures.ema_top1_error
    session.recorder.log(
        f"epoch {row['epoch']}/{session.recipe.train.epochs} step {row['step']}: top-1 error"
        f" {figures.top1_error:.2f} %, loss {figures.loss:.4f} on {figures.samples:,} images"
        + ("" if averaged is None else f"; averaged weights: top-1 error {averaged:.2f} %")
    )


def evaluation_row(epoch: int, step: int, figures: Figures) -> dict[str, Any]:
    """The EVAL event's fields. `epoch` counts finished epochs."""
    found = figures.asdict()
    named = {field.name: found[field.name] for field in EVAL_FIELDS if field.name in found}
    return {"epoch": epoch, "step": step, "split": "val", **named}


def write_result(session: Session) -> None:
    """metrics.json: the last evaluation,
    and what the network costs at this point of its pruning.
    """
    row = session.progress.last_eval
    if session.recorder.active and row is not None:
        facts = result_facts(row, session.meter.now())
        write_json(session.run.metrics, facts, point="metrics")


def result_facts(row: Mapping[str, Any], cost: Complexity) -> dict[str, Any]:
    """What metrics.json holds."""
    return {
        **{key: row[key] for key in (*RESULTS, "epoch") if key in row},
        **{f"macs_{key}": value for key, value in costs.three_ways(cost).items()},
        "parameters": cost.params,
    }


def write_verdict(session: Session) -> None:
    """verdict.json, once the run is at its end."""
    row = session.progress.last_eval
    if session.recorder.active and row is not None:
        write_json(session.run.verdict, {"verdicts": verdicts(session.recipe, row)})


def verdicts(recipe: Recipe, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each expectation of the recipe against the run's last evaluation,
    of the figures that it has.
    """
    return [
        {
            "metric": wanted.metric,
            "value": row[wanted.metric],
            "expected": wanted.value,
            "tolerance": wanted.tolerance,
            "source": wanted.source,
            "passed": row[wanted.metric] <= wanted.value + wanted.tolerance,
        }
        for wanted in recipe.expect
        if wanted.metric in row
    ]
