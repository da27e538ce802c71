"""Write down what the runs of a study came to, without the places and machines in their records:

    python -m benchmarks.study_rows RUNS_DIR docs/studies/NAME

results.csv: a row a finished run, with its id, the digests of its recipe and of its metric rows, and
what it cost; curves.csv: the error after each epoch. Runs that failed are rows too, with their state.
Rows of runs that are not in RUNS_DIR stay: a study is trained over days, on several machines.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgc.recipe.load import load_recipe
from dgc.run.events import EventKind, metric_digest
from dgc.run.status import State
from dgcctl.core.runs import listing
from dgcctl.core.runs.record import RunRecord, read_record

KEYS = ("model.form", "model.growth", "model.gate_factor", "seed")
FACTS = (
    "state", "top1_error", "loss", "macs_executed", "parameters", "seconds",
    "recipe_digest", "metric_digest", "code_digest", "torch", "threads",
)  # fmt: skip


def main(runs: Path, out: Path) -> None:
    records = [read_record(run.dir) for run in listing.list_runs(runs)]
    ended = [record for record in records if record.state in (State.DONE, State.FAILED)]
    here = {record.id for record in ended}
    rows = [{**{key: record.recipe.get(key) for key in KEYS}, **facts(record)} for record in ended]
    rows += [row for row in there(out / "results.csv") if row["run"] not in here]
    rows.sort(key=lambda row: ([str(row[key]) for key in KEYS], row["run"]))
    points = [*curves(ended)]
    points += [row for row in there(out / "curves.csv") if row["run"] not in here]
    order = {row["run"]: i for i, row in enumerate(rows)}
    points.sort(key=lambda row: order[row["run"]])
    write(out / "results.csv", ("run", *KEYS, *FACTS), rows)
    write(out / "curves.csv", ("run", "epoch", "step", "top1_error", "loss"), points)


def there(path: Path) -> list[dict[str, Any]]:
    """The rows of a table that was written before."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def facts(record: RunRecord) -> dict[str, Any]:
    """What a run came to and cost: its id and FACTS."""
    found = {key: record.metrics.get(key) for key in FACTS if key in record.metrics}
    packages = record.env.get("packages", {})
    return {
        "run": record.id,
        "state": str(record.state),
        **found,
        "seconds": round(record.seconds),
        "recipe_digest": load_recipe(record.run.recipe).digest(),
        "metric_digest": metric_digest(record.events),
        "code_digest": record.git.get("code"),
        "torch": packages.get("torch"),
        "threads": record.env.get("threads"),
    }


def curves(records: list[RunRecord]) -> Iterator[dict[str, Any]]:
    for record in records:
        for row in record.of_kind(EventKind.EVAL):
            keys = ("epoch", "step", "top1_error", "loss")
            yield {"run": record.id, **{key: row[key] for key in keys}}


def write(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
