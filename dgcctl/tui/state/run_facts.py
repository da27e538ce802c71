"""What the screens say about one run, from its records: target, errors, costs. Small files, read
when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dgc.errors import DgcError
from dgc.recipe.load import Recipe, load_recipe
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgcctl.core.runs.listing import Run
from dgcctl.core.runs.run_ids import recipe_name
from dgcctl.tui.state.feed import Feed

TOP1 = "eval.top1_error"


@dataclass(frozen=True)
class Target:
    """What the recipe expects: an error in percent, met where it is at most value + tolerance."""

    metric: str
    value: float
    tolerance: float
    source: str

    def met(self, error: float) -> bool:
        return error <= self.value + self.tolerance


def short_id(run_id: str) -> str:
    """Recipe and the id's last part, which names it in every command too."""
    return f"{recipe_name(run_id)}-{run_id.rpartition('-')[2]}"


def recipe_of(run: RunDir) -> Recipe | str:
    """The recipe of a run, or why it cannot be read."""
    try:
        return load_recipe(run.recipe)
    except (DgcError, OSError) as error:
        return str(error).splitlines()[0]


def targets(recipe: Recipe | str) -> list[Target]:
    if isinstance(recipe, str):
        return []
    return [Target(row.metric, row.value, row.tolerance, row.source) for row in recipe.expect]


def best_error(feed: Feed | None) -> float | None:
    """Lowest top-1 error in a log; None where it holds none."""
    values = feed.points(TOP1).value if feed else np.empty(0)
    finite = values[np.isfinite(values)]
    return float(finite.min()) if len(finite) else None


def last_error(run: Run, feed: Feed | None) -> float | None:
    """Top-1 error of the last evaluation."""
    # the log is newer than metrics.json while it is open
    last = feed.last(TOP1) if feed else None
    return _number(run.metrics.get("top1_error")) if last is None else last


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def document(run: RunDir, name: str) -> dict[str, Any]:
    """A JSON record of a run; empty where it is absent or damaged (the listing says so)."""
    try:
        return read_json(run.file(name))
    except (OSError, DgcError):
        return {}
