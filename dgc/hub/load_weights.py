"""Any checkpoint as a network that can be run: released by name, a run's, or a file of either
format.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from dgc.errors import IntegrityError, UsageError
from dgc.hub import filetype, tensorfile
from dgc.hub.card import Card, card_of, read_card
from dgc.hub.convert import convert
from dgc.hub.export import (
    METADATA_KEY,
    MODEL_FILE,
    checkpoint_facts,
    checkpoint_folder,
    record_beside,
)
from dgc.hub.fetch import Options, identify
from dgc.hub.pretrained import load_pretrained, load_weights
from dgc.hub.registry import Entry, Preprocessing, load_registry
from dgc.models import create_model
from dgc.recipe.load import Recipe, diff_recipes, find_recipe, load_recipe, parse_recipe
from dgc.run.checkpoint_store import MANIFEST, read_verified
from dgc.run.paths import RunDir


@dataclass(frozen=True)
class Opened:
    """A network in evaluation mode, a recipe for it, and the card of its weights, which goes before
    the recipe.

    `entry`: where it is released.
    """

    model: nn.Module
    recipe: Recipe
    card: Card
    title: str
    entry: Entry | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """What its images must go through."""
        return self.card.preprocessing


def open_pretrained(name: str, options: Options | None = None) -> Opened:
    """The released network `name` with its weights."""
    model, preprocessing, entry = load_pretrained(name, options=options)
    return Opened(model, load_recipe(find_recipe(entry.recipe)), Card(preprocessing), name, entry)


def open_run(run: RunDir, step: str = "last") -> Opened:
    """The network of a run's checkpoint (`best`, `last` or a step), every digest checked."""
    folder = checkpoint_folder(run, step)
    recipe, card = checkpoint_facts(read_verified(folder), folder, run)
    return _open(recipe, folder / MODEL_FILE, f"{run.id} ({folder.name})", card)


def open_file(path: Path, recipe: Recipe | None = None) -> Opened:
    """A checkpoint file: safetensors (an export, one of a run's folder, or bare weights with a
    recipe), or the released format.

    `recipe` says where the images are and what is expected; of a file that knows its own network,
    classes and preprocessing it changes none of these. Raises UsageError where a recipe is needed
    and not given, or is for another network; IntegrityError, UnsafeFileError as loading does.
    """
    if filetype.sniff(filetype.read_head(path)) != filetype.SAFETENSORS:
        return _open_released(path, recipe)
    told = _told(path)
    if told is None and recipe is None:
        raise UsageError(
            f"{path}: no record {path.stem}.json beside it, so say with --recipe which network it"
            " is for"
        )
    if told is None:
        assert recipe is not None
        return _open(recipe, path, path.name, card_of(recipe))
    own, card = told
    return _open(_same_network(path, own, recipe) if recipe else own, path, path.name, card)


def _told(path: Path) -> tuple[Recipe, Card] | None:
    """Recipe and card of a weights file: from the record beside it, the checkpoint it lies in, or
    its own header.
    """
    if beside := record_beside(path):
        recipe, record = beside
        return recipe, _card_in(record, recipe, str(path.with_suffix(".json")))
    if path.name == MODEL_FILE and (path.parent / MANIFEST).is_file():
        return checkpoint_facts(read_verified(path.parent), path.parent)
    text = tensorfile.read_header(path).metadata.get(METADATA_KEY)
    return told_in(text, f"{path}: its header") if text else None


def told_in(text: str, where: str) -> tuple[Recipe, Card]:
    """Recipe and card of an export's own record, as it stands inside a file."""
    try:
        record = json.loads(text)
        recipe = parse_recipe(record["recipe"], where)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{where} is no record of an export ({error!r})") from error
    return recipe, _card_in(record, recipe, where)


def _card_in(record: Mapping[str, Any], recipe: Recipe, where: str) -> Card:
    """The card in a record; of an older one, what its recipe says."""
    return read_card(record, where) if "preprocessing" in record else card_of(recipe)


def _same_network(path: Path, own: Recipe, given: Recipe) -> Recipe:
    other = [
        (key, mine, theirs)
        for key, mine, theirs in diff_recipes(own, given)
        if key.startswith("model.")
    ]
    if other:
        key, mine, theirs = other[0]
        raise UsageError(
            f"{path}: was made with {key} = {mine}, and the recipe given says {theirs}: leave"
            " --recipe out, the file knows its network"
        )
    return given


def _open(
    recipe: Recipe, weights: Path, title: str, card: Card, entry: Entry | None = None
) -> Opened:
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    load_weights(model, weights)
    return Opened(model.eval(), recipe, card, title, entry)


def _open_released(path: Path, recipe: Recipe | None) -> Opened:
    entry = identify(path, load_registry()) if recipe is None else None
    if entry is not None:
        recipe = load_recipe(find_recipe(entry.recipe))
    if recipe is None:
        raise UsageError(
            f"{path}: is none of the released networks, so say with --recipe which network it"
            " is for"
        )
    with tempfile.TemporaryDirectory(prefix="dgcctl-") as folder:
        weights = Path(folder, MODEL_FILE)
        found = convert(
            path, recipe.model.name, weights, arguments=recipe.model.kwargs(), origin=str(path)
        )
        text = found.record["facts"].get(METADATA_KEY)
        if isinstance(text, str):  # one of our own exports
            own, card = told_in(text, f"{path}: its record")
            return _open(_same_network(path, own, recipe), weights, path.name, card)
        card = (
            card_of(recipe)
            if entry is None
            else replace(card_of(recipe), preprocessing=entry.preprocessing)
        )
        return _open(recipe, weights, entry.name if entry else path.name, card, entry)
