"""The resolved recipe of a run as dotted keys and values, for listings and filters.

The trainer writes them down (recipe.json). A run that it has not begun yet, one of an older release
and one whose recipe.yaml was changed since are read from recipe.yaml itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from dgc.errors import IntegrityError
from dgc.run.files import read_bounded, read_json
from dgc.run.paths import RunDir

RECIPE_BYTES = 1 << 20  # a hundred times the longest
# what every run is listed with (dgcctl.core.runs.listing), so that no value of a config may hide
# behind it, nor it behind the config
OF_THE_RUN = frozenset((
    "id", "name", "recipe", "title", "tags", "note", "state", "reason", "path",
    "epoch", "epochs", "step", "steps", "started", "seconds", "age", "host", "owner", "repeats",
    "loss", "top1_error", "top5_error", "macs_dense", "macs_promised", "macs_executed",
    "parameters",
))  # fmt: skip


def read_values(run: RunDir) -> dict[str, Any]:
    """Dotted keys and values, without `expect` and `origin`;
    empty where the recipe cannot be read.
    """
    return values_of(read_tree(run))


def read_tree(run: RunDir) -> dict[str, Any]:
    """The recipe as it stands; of a script's run what it says of itself;
    empty where neither can be read.
    """
    try:
        try:
            text = read_bounded(run.recipe, RECIPE_BYTES)
        except FileNotFoundError:
            return script_values(run)
        # the record is read twenty times as fast as the YAML
        return _recorded(run, text) or _parsed(text.decode("utf-8"))
    except (OSError, UnicodeDecodeError, IntegrityError):
        return {}


def recorded_tree(run: RunDir) -> dict[str, Any]:
    """The resolved recipe from recipe.json; empty where it is not of the recipe.yaml beside it."""
    try:
        return _recorded(run, read_bounded(run.recipe, RECIPE_BYTES))
    except (OSError, IntegrityError):
        return {}


def values_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and values of such a tree, without `expect` and `origin`."""
    return flatten({key: tree[key] for key in tree if key not in ("origin", "expect")})


def script_values(run: RunDir) -> dict[str, Any]:
    """What a run says that a script recorded (dgc.run.script):
    its config, and the labels that a recipe has. A value of the config whose name the run has too
    is called `config.NAME`.
    """
    try:
        told = read_json(run.config)
    except (OSError, IntegrityError):
        return {}
    config = told.get("config")
    labels: dict[str, Any] = {
        key: told[key] for key in ("name", "title", "tags", "seed") if key in told
    }
    given = flatten(config if isinstance(config, dict) else {})
    told_apart = {
        f"config.{key}" if key in OF_THE_RUN else key: value for key, value in given.items()
    }
    return {**told_apart, **labels}


def _recorded(run: RunDir, text: bytes) -> dict[str, Any]:
    """What recipe.json says, if it says it of this very recipe.yaml. A person may have edited that
    one, and it is what the trainer reads: the record beside it must never win over it.
    """
    try:
        record = read_json(run.recipe_json)
    except (OSError, IntegrityError):
        return {}
    tree = record.get("recipe")
    # its digest, not its date: a copied folder has other dates
    fits = record.get("of_sha256") == hashlib.sha256(text).hexdigest()
    return tree if fits and isinstance(tree, dict) else {}


def _parsed(text: str) -> dict[str, Any]:
    # only here: most runs have the record, and a YAML reader takes longer to import than to list
    # them all
    from dgc.recipe import yaml12

    tree = yaml12.plain_tree(text)
    return tree if isinstance(tree, dict) else {}


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings; lists are values, empty mappings vanish.

    (A loop over dicts and not a generator over Mappings: a listing of 5,000 runs asks 400,000
    times, and the question of an abstract class alone would take a third of a second.)
    """
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if type(inner) is dict:
            found.update(flatten(inner, f"{prefix}{key}."))
        elif isinstance(inner, tuple):
            # one kind of list, whether it came from JSON or from YAML
            found[prefix + key] = list(inner)
        else:
            found[prefix + key] = inner
    return found
