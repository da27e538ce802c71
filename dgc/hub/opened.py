"""Any checkpoint as a network that can be run: released by name, a run's, or a file of either format."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dgc.checkpoints import read_verified
from dgc.errors import UsageError
from dgc.hub import kinds
from dgc.hub.convert import convert
from dgc.hub.download import Options, identify
from dgc.hub.export import MODEL_FILE, checkpoint_folder, record_beside
from dgc.hub.pretrained import load_pretrained, load_weights
from dgc.hub.registry import Entry, Preprocessing, load_registry
from dgc.models import create_model
from dgc.recipe import Recipe, find_recipe, load_recipe
from dgc.records import RunDir


@dataclass(frozen=True)
class Opened:
    """A network in evaluation mode, its recipe, and what its images must go through. `entry`: where it is released."""

    model: nn.Module
    recipe: Recipe
    preprocessing: Preprocessing
    title: str
    entry: Entry | None = None


def preprocessing_of(recipe: Recipe) -> Preprocessing:
    """Geometry and normalisation of a recipe's evaluation images."""
    data = recipe.data
    return Preprocessing(data.resize, data.image_size, tuple(data.mean), tuple(data.std))  # type: ignore[arg-type]


def open_pretrained(name: str, options: Options | None = None) -> Opened:
    """The released network `name` with its weights."""
    model, preprocessing, entry = load_pretrained(name, options=options)
    return Opened(model, load_recipe(find_recipe(entry.recipe)), preprocessing, name, entry)


def open_run(run: RunDir, step: str = "best") -> Opened:
    """The network of a run's checkpoint (`best`, `last` or a step), every digest checked."""
    recipe, folder = load_recipe(run.recipe), checkpoint_folder(run, step)
    read_verified(folder)
    return _open(recipe, folder / MODEL_FILE, f"{run.id} ({folder.name})")


def open_file(path: Path, recipe: Recipe | None = None) -> Opened:
    """A checkpoint file: safetensors (ours, with its record beside it or with a recipe), or the released format.

    Raises UsageError where a recipe is needed and not given; IntegrityError, UnsafeFileError as loading does.
    """
    if kinds.sniff(kinds.read_head(path)) == kinds.SAFETENSORS:
        beside = record_beside(path)
        chosen = recipe or (beside[0] if beside else None)
        if chosen is None:
            raise UsageError(
                f"{path}: no record {path.stem}.json beside it, so say with --recipe which network it is for"
            )
        return _open(chosen, path, path.name)
    return _open_released(path, recipe)


def _open(recipe: Recipe, weights: Path, title: str, entry: Entry | None = None) -> Opened:
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    load_weights(model, weights)
    return Opened(model.eval(), recipe, preprocessing_of(recipe), title, entry)


def _open_released(path: Path, recipe: Recipe | None) -> Opened:
    entry = identify(path, load_registry()) if recipe is None else None
    if entry is not None:
        recipe = load_recipe(find_recipe(entry.recipe))
    if recipe is None:
        raise UsageError(f"{path}: is none of the released networks, so say with --recipe which network it is for")
    with tempfile.TemporaryDirectory(prefix="dgcctl-") as folder:
        weights = Path(folder, MODEL_FILE)
        convert(path, recipe.model.name, weights, arguments=recipe.model.kwargs(), origin=str(path))
        return _open(recipe, weights, entry.name if entry else path.name, entry)
