"""What a run directory says about itself, read once into one value. Absent files are empty, damaged
ones an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dgc.errors import DgcError, UsageError
from dgc.recipe.load import RECORDED, Recipe, is_semantic, load_recipe
from dgc.recipe.load import flatten as flatten_recipe
from dgc.run.events import METRIC_KINDS, Event, EventKind, live_rows, read_events
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, inferred_state, read_status
from dgcctl.core.runs.recipe_values import recorded_tree, script_values


@dataclass(frozen=True)
class RunRecord:
    """One run: resolved recipe (flat, dotted keys), status and the records beside it."""

    run: RunDir
    recipe: dict[str, Any]
    status: Status
    env: dict[str, Any] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    verdict: dict[str, Any] = field(default_factory=dict)
    own_code: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def state(self) -> State:
        return inferred_state(self.status)

    @property
    def by_script(self) -> bool:
        """Whether a script recorded it (dgc.run.start), without a recipe."""
        return self.run.config.exists()

    @property
    def seed(self) -> int:
        return int(self.recipe.get("seed", 0))

    def parting(self, without: Iterable[str] = ()) -> dict[str, Any]:
        """The keys by which runs are told apart. A recipe says all that it computes; a script need
        not put it into its config, and parts its experiments by their names.
        """
        left_out = set(without)
        keys = computing_keys(self.recipe, without=left_out)
        if self.by_script and "name" not in left_out:
            return {"name": self.recipe.get("name"), **keys}
        return keys

    @property
    def seconds(self) -> float:
        return self.status.seconds

    @cached_property
    def events(self) -> list[Event]:
        return read_events(self.run)

    @cached_property
    def rows(self) -> list[Event]:
        """The metric rows that count (replayed steps dropped)."""
        return live_rows(self.events)

    def of_kind(self, kind: EventKind) -> list[Event]:
        source = self.rows if kind in METRIC_KINDS else self.events
        return [event for event in source if event["kind"] == kind]


def read_record(run: RunDir) -> RunRecord:
    """Read a run. Raises UsageError where the folder is no run,
    RecipeError or IntegrityError where it is damaged.
    """
    # a recipe goes before a config: a script's run has none
    by_script = not run.recipe.is_file() and run.config.is_file()
    if not (run.recipe.is_file() or by_script) or not run.status.is_file():
        raise UsageError(
            f"{run.path}: no run directory (recipe.yaml and status.json are expected): see `dgcctl"
            " runs ls`"
        )
    parts = {
        name: _json_or_empty(run.file(f"{name}.json"))
        for name in ("env", "git", "data", "model", "metrics")
    }
    return RunRecord(
        run=run,
        recipe=script_values(run) if by_script else recipe_of(run),
        status=read_status(run),
        verdict=_json_or_empty(run.verdict),
        own_code=dict(_json_or_empty(run.own_code).get("packages") or {}),
        **parts,
    )


def recipe_of(run: RunDir) -> dict[str, Any]:
    """As `flat_recipe` of its file.
    The trainer's record of that very file says the same, and is read twenty times as fast.
    """
    tree = recorded_tree(run)
    if tree:
        # validated like a recipe of today: keys that were added since get their defaults
        with contextlib.suppress(ValidationError):  # of another release, with other keys
            recipe = Recipe.model_validate(_frozen(tree), context=RECORDED)
            return dict(flatten_recipe(recipe))
    return flat_recipe(run.recipe)


def own_figures(
    values: Mapping[str, Any], named: Iterable[str], recipe: Mapping[str, Any]
) -> dict[str, float]:
    """The numbers that a script recorded under names of its own (accuracy, f1): all but those of
    `named`, and but the values of its config, which it may log too.
    """
    known = {"epoch", *named, *recipe}
    return {
        key: value
        for key, value in values.items()
        # bool is a number to Python, and none to a table
        if key not in known and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _frozen(value: Any) -> Any:
    """With tuples where JSON has lists, as a recipe has them."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _json_or_empty(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    value.pop("schema_version", None)
    return value


def flat_recipe(path: Path) -> dict[str, Any]:
    """The recipe of a file with dotted keys, every default written out."""
    return dict(flatten_recipe(load_recipe(path)))


def computing_keys(recipe: Mapping[str, Any], *, without: Iterable[str] = ()) -> dict[str, Any]:
    """The part of a flat recipe that changes what is computed:
    no labels, places or saving intervals.
    """
    left_out = set(without)
    return {key: value for key, value in recipe.items() if is_semantic(key) and key not in left_out}


def few_images(recipe: Mapping[str, Any], run: RunDir) -> str:
    """` on 300 images` where a run was evaluated on some of its images alone: what is expected
    was measured on all of them.
    """
    if recipe.get("data.limit_val") is None:
        return ""
    try:
        count = read_json(run.data)["val"]["samples"]
    except (OSError, DgcError, KeyError, TypeError):
        return " on some of the images"
    return f" on {count:,} images" if isinstance(count, int) else ""
