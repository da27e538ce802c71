"""The card of a set of weights: what belongs to them and travels with them, in a checkpoint or an
exported file.

What label 3 is called and what an image must go through are facts of the weights; a recipe at hand
may say otherwise. No torch here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from dgc.errors import IntegrityError, UsageError
from dgc.hub.registry import ImageSteps
from dgc.recipe.load import Recipe, load_recipe, parse_recipe
from dgc.run.checkpoint_store import (
    EMA_FILE,
    MODEL_FILE,
    STATE_FILE,
    checked_structure,
    structure_in,
)
from dgc.run.files import read_json, sha256_of
from dgc.run.paths import RunDir

METADATA_KEY = "dgcctl"  # of the record inside an exported file, as JSON
_GREY = ("fashion_mnist",)  # data sets of one channel
_CROP = "center"


@dataclass(frozen=True)
class Card:
    """`classes`: names by label, empty where nobody recorded them. `folders`: names of the class
    folders by label, where these are others. `data`: name and digest of the images they were
    evaluated on in training, if known.
    """

    preprocessing: ImageSteps
    classes: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    data: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        how = {**asdict(self.preprocessing), "crop": _CROP}
        return {
            "classes": list(self.classes),
            "folders": list(self.folders),
            "preprocessing": how,
            "data": self.data and dict(self.data),
        }


def card_of(recipe: Recipe, data_json: Mapping[str, Any] | None = None) -> Card:
    """The card of a network that was trained
    with `recipe` on what `data_json` (a run's data.json) describes.
    """
    data = recipe.data
    mean, std = ((x[0], x[1], x[2]) for x in (data.mean, data.std))
    channels = 1 if data.name in _GREY else 3
    card = Card(ImageSteps(data.resize, data.image_size, mean, std, channels))
    if not data_json:
        return card
    val = data_json.get("val")
    val = val if isinstance(val, Mapping) else {}  # runs of other programs say only how many
    facts = {
        "name": data_json.get("name"),
        "sha256": val.get("sha256"),
        "samples": val.get("samples"),
    }
    classes, folders = (tuple(map(str, data_json.get(key) or ())) for key in ("classes", "folders"))
    return replace(card, classes=classes, folders=folders, data=facts)


def read_card(document: Any, where: str) -> Card:
    """What `document` wrote. Raises IntegrityError where it is no such thing:
    it may come from a file of strangers.
    """
    try:
        how = document["preprocessing"]
        # only what this release does is accepted: another
        # crop would give other figures without a word
        if how.get("crop", _CROP) != _CROP:
            raise ValueError(f"crop {how['crop']!r}")
        mean, std = (_three(how[key]) for key in ("mean", "std"))
        # a standard deviation is divided by
        if not all(value > 0 for value in std):
            raise ValueError(f"std {std}")
        resize, size, channels = (
            how["resize"],
            _positive(how["image_size"]),
            _positive(how["channels"]),
        )
        preprocessing = ImageSteps(
            None if resize is None else _positive(resize), size, mean, std, channels
        )
        classes, folders = (_names(document.get(key) or []) for key in ("classes", "folders"))
        data = document.get("data")
        if data is not None and not isinstance(data, dict):
            raise TypeError("data is no mapping")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"{where}: no usable record of classes and preprocessing ({error!r})"
        ) from error
    return Card(preprocessing, classes, folders, data)


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    if not all(map(math.isfinite, (first, second, third))):
        raise ValueError(f"{values!r} is not finite")
    return first, second, third


def _positive(value: Any) -> int:
    # type, not isinstance: True is an int to Python
    if type(value) is not int or not 0 < value <= 1 << 16:
        raise ValueError(f"{value!r} is no size")
    return value


def _names(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("names are a list of texts")
    return tuple(values)


# --- recipe and card as they stand beside or inside weights ---------------------------------------


class Told(NamedTuple):
    """What weights say of themselves: the recipe they were trained by, their card, what their
    network is made of (None: a record of before that was written), and whether they are a running
    average (`train.ema_decay`; None: nobody says).
    """

    recipe: Recipe
    card: Card
    structure: Mapping[str, Any] | None = None
    averaged: bool | None = None


def checkpoint_facts(files: Mapping[str, bytes], folder: Path, run: RunDir | None = None) -> Told:
    """What was trained in a checkpoint (its verified `files`).

    A checkpoint of before there were cards is described by its run's recipe and data.json.
    """
    state = json.loads(files.get(STATE_FILE, b"{}"))
    # a checkpoint lies in <run>/checkpoints/step-N, so the run is two folders up
    run = run or RunDir(folder.parent.parent)
    if text := state.get("stands_on", {}).get("recipe"):
        recipe = parse_recipe(text, f"{folder}/{STATE_FILE}")
    else:
        recipe = load_recipe(run.recipe)
    structure = structure_in(files, str(folder))
    if "card" in state:
        return Told(recipe, read_card(state["card"], f"{folder}/{STATE_FILE}"), structure)
    card = card_of(recipe, read_json(run.data) if run.data.exists() else None)
    return Told(recipe, card, structure)


def weights_file(run: RunDir, files: Mapping[str, bytes], *, ema: bool) -> str:
    """Which file of a checkpoint holds the weights that are wanted. Raises UsageError."""
    if ema and EMA_FILE not in files:
        raise UsageError(
            f"{run.id} has no averaged weights: its recipe sets no train.ema_decay; leave --ema out"
        )
    return EMA_FILE if ema else MODEL_FILE


def told_in(text: str, where: str) -> Told:
    """An export's own record, as it stands inside a file."""
    try:
        record = json.loads(text)
        recipe = parse_recipe(record["recipe"], where)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{where} is no record of an export ({error!r})") from error
    return recorded(record, recipe, where)


def recorded(record: Mapping[str, Any], recipe: Recipe, where: str) -> Told:
    """What the record of an export says, which names averaged weights alone."""
    averaged = record.get("averaged") is True
    return Told(recipe, card_in(record, recipe, where), made_of(record, where), averaged)


def made_of(record: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The structure in a record of an export; None in an older one. Raises IntegrityError."""
    found = record.get("structure")
    return None if found is None else checked_structure(found, where)


def card_in(record: Mapping[str, Any], recipe: Recipe, where: str) -> Card:
    """The card in a record; of an older one, what its recipe says."""
    return read_card(record, where) if "preprocessing" in record else card_of(recipe)


def record_beside(weights: Path) -> tuple[Recipe, dict[str, Any]] | None:
    """Recipe and record of an exported file, its digest checked;
    None where no record lies beside it.
    """
    beside = weights.with_suffix(".json")
    if not beside.is_file():
        return None
    record = read_json(beside)
    try:
        recipe, told = parse_recipe(record["recipe"], str(beside)), record["weights"]["sha256"]
    except (KeyError, TypeError) as error:
        raise IntegrityError(
            f"{beside}: is no record of an export ({error!r} is missing)"
        ) from error
    # the digest is of the whole file: a header that was changed counts as well
    found = sha256_of(weights)
    if found != told:
        raise IntegrityError(
            f"{weights}: sha256 {found}, but {beside.name} says {told}: one of them was changed"
        )
    return recipe, record
