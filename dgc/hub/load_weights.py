"""Any checkpoint as a network that can be run: released by name, a run's, or a file of either
format.

`create_model` is what `dgc.create_model` is: the networks' own table, and the released weights
where they are asked for. It stands here, above both, because the networks know nothing of the hub.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dgc.errors import IntegrityError, UsageError
from dgc.hub import filetype, initial, recorded_networks
from dgc.hub.cache import Cache, hold
from dgc.hub.card import (
    METADATA_KEY,
    Card,
    Told,
    card_of,
    checkpoint_facts,
    record_beside,
    recorded,
    told_in,
    weights_file,
)
from dgc.hub.convert import Converted, convert, existing
from dgc.hub.fetch import Fetched, FetchOptions, download, identify
from dgc.hub.registry import ImageSteps, ReleasedCheckpoint, find_entry, load_registry
from dgc.hub.scan import inspect
from dgc.models import create_model as create_network
from dgc.recipe.load import Recipe, diff_recipes, find_recipe, load_recipe
from dgc.run.checkpoint_store import (
    EMA_FILE,
    MANIFEST,
    MODEL_FILE,
    STATE_FILE,
    checkpoint_folder,
    read_verified,
)
from dgc.run.files import clear_leftovers
from dgc.run.paths import RunDir


def create_model(name: str, *, pretrained: bool = False, **overrides: Any) -> nn.Module:
    """A network by name (`dgc.list_models()`), fresh and in training mode;
    or with its released weights, in eval mode.

    `overrides` are arguments of the network (heads, gate_factor, num_classes, form, ...). With
    `pretrained` the weights are downloaded at the first use (see docs/checkpoints.md); they fit the
    released network alone, so that overrides are refused. Raises UsageError, and what
    `dgc.hub.load_pretrained` raises.
    """
    if not pretrained:
        return create_network(name, **overrides)
    if overrides:
        raise UsageError(
            f"create_model({name!r}, pretrained=True) takes no {', '.join(overrides)}: the released"
            " weights fit the released network alone"
        )
    return load_pretrained(name).model


class Pretrained(NamedTuple):
    """A network in evaluation mode,
    what its images must go through, and its line of the registry.
    """

    model: nn.Module
    preprocessing: ImageSteps
    info: ReleasedCheckpoint


def load_pretrained(
    name: str, cache: Cache | None = None, options: FetchOptions | None = None
) -> Pretrained:
    """Download (or find in the cache), check, convert once and load the released network `name`.

    Raises UsageError for an unknown name, NetworkError (6), IntegrityError (4), UnsafeFileError
    (5).
    """
    entry, cache, options = find_entry(name), cache or Cache.default(), options or FetchOptions()
    # within the `with`: where the cache cannot be written the converted file is gone after it
    with converted(entry, download(entry, cache, options), cache, options) as result:
        model = create_network(entry.name)
        load_weights(model, result.weights)
    return Pretrained(model.eval(), entry.preprocessing, entry)


@contextmanager
def converted(
    entry: ReleasedCheckpoint, fetched: Fetched, cache: Cache, options: FetchOptions
) -> Iterator[Converted]:
    """The converted weights of a fetched checkpoint; kept in the cache where it can be written."""
    weights = cache.converted(entry.name)
    # before the lock, as in `download`: a cache that is only read needs none
    if found := existing(weights, fetched.sha256):
        yield found
        return
    try:
        with hold(cache.lock(weights.name), options.say):
            # what a converter that was killed left behind
            clear_leftovers(cache.folder)
            found = existing(weights, fetched.sha256) or _convert(entry, fetched, weights, options)
    # a cache of somebody else's: converted each time, beside it
    except PermissionError:
        with tempfile.TemporaryDirectory(prefix="dgcctl-") as folder:
            yield _convert(entry, fetched, Path(folder, weights.name), options)
        return
    yield found


def _convert(
    entry: ReleasedCheckpoint, fetched: Fetched, weights: Path, options: FetchOptions
) -> Converted:
    result = convert(fetched.inspect(), entry.name, weights, origin=fetched.pin.origin)
    left = "; ".join(result.stripped) or "nothing"
    options.say(f"{entry.name}: converted to {weights.name}; left behind: {left}")
    return result


def load_weights(model: nn.Module, weights: Path) -> None:
    """Load a safetensors file of ours into `model`, strictly.
    Raises IntegrityError naming the first five keys.
    """
    from safetensors.torch import load_file

    header = filetype.read_header(weights)
    # shapes from the header: nothing is read into memory that will not fit
    mine: dict[str, Any] = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = {key: shape for key, (_, shape) in header.tensors.items()}
    wrong = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if wrong:
        told = header.metadata.get("model", "another network")
        raise IntegrityError(
            f"{weights}: {len(wrong)} keys do not fit the model ({', '.join(wrong[:5])}); the file"
            f" is for {told}"
        )
    model.load_state_dict(load_file(weights), strict=True)


# --- any checkpoint -------------------------------------------------------------------------------


class UnnamedNetworkError(UsageError):
    """Weights that do not say which network they are of, and nobody else did."""


@dataclass(frozen=True)
class Opened:
    """A network in evaluation mode, a recipe for it,
    and the card of its weights, which goes before the recipe.

    `entry`: where it is released. `averaged`: whether the weights are a running average; None:
    nobody says.
    """

    model: nn.Module
    recipe: Recipe
    card: Card
    title: str
    entry: ReleasedCheckpoint | None = None
    averaged: bool | None = None

    @property
    def preprocessing(self) -> ImageSteps:
        """What its images must go through."""
        return self.card.preprocessing


def open_named(given: argparse.Namespace, options: FetchOptions | None = None) -> Opened:
    """What the arguments of a job name: a released network (`pretrained`), a file (`weights`, with
    a `recipe` where it needs one) or a run (`run_dir`, `step`, and `ema` for its averaged weights).
    """
    if given.pretrained:
        return open_pretrained(given.pretrained, options)
    if given.weights:
        recipe = load_recipe(find_recipe(given.recipe)) if given.recipe else None
        return open_file(given.weights, recipe)
    return open_run(RunDir(given.run_dir), given.step, ema=getattr(given, "ema", False))


def open_pretrained(name: str, options: FetchOptions | None = None) -> Opened:
    """The released network `name` with its weights."""
    model, preprocessing, entry = load_pretrained(name, options=options)
    return Opened(model, load_recipe(find_recipe(entry.recipe)), Card(preprocessing), name, entry)


def open_run(run: RunDir, step: str = "last", *, ema: bool = False) -> Opened:
    """The network of a run's checkpoint (`best`, `last` or a step), every digest checked. `ema`:
    with its averaged weights; UsageError where it has none.
    """
    folder = checkpoint_folder(run, step)
    files = read_verified(folder)
    told = checkpoint_facts(files, folder, run)._replace(averaged=ema)
    which = f"{folder.name}, averaged weights" if ema else folder.name
    return _open(told, folder / weights_file(run, files, ema=ema), f"{run.id} ({which})")


def open_file(path: Path, recipe: Recipe | None = None) -> Opened:
    """A checkpoint file: safetensors (an export, one of a run's folder, or bare weights with a
    recipe), or the released format.

    `recipe` says where the images are and what is expected; of a file that knows its own network,
    classes and preprocessing it changes none of these. Raises UsageError where a recipe is needed
    and not given, or is for another network; IntegrityError, UnsafeFileError as loading does.
    """
    # by its first bytes, not by its name
    if filetype.sniff(filetype.read_head(path)) != filetype.SAFETENSORS:
        return _open_released(path, recipe)
    told = _told(path)
    if told is None and recipe is None:
        raise UnnamedNetworkError(
            f"{path}: no record {path.stem}.json beside it, so say with --recipe which network it"
            " is for"
        )
    # bare weights: the recipe is all that is known
    if told is None:
        assert recipe is not None
        return open_unnamed(path, recipe)
    if recipe is not None:
        told = told._replace(recipe=_same_network(path, told.recipe, recipe))
    return _open(told, path, path.name)


def open_unnamed(path: Path, recipe: Recipe, key: str = "") -> Opened:
    """Weights that do not say which network they are of, as those of the recipe's; `key` names the
    file in what is said. Raises IntegrityError where they do not fit.
    """
    model = recorded_networks.of_weights(recipe, initial.unnamed(path, key))
    return Opened(model.eval(), recipe, card_of(recipe), path.name)


def _told(path: Path) -> Told | None:
    """What a weights file says of itself:
    in the record beside it, the checkpoint it lies in, or its own header.
    """
    # from the surest on: a record beside it has a digest, a checkpoint has one of each file
    if beside := record_beside(path):
        recipe, record = beside
        return recorded(record, recipe, str(path.with_suffix(".json")))
    if path.name in (MODEL_FILE, EMA_FILE) and (path.parent / MANIFEST).is_file():
        files = read_verified(path.parent)
        # a script's checkpoint says what its network is made of, and not which one it is
        if STATE_FILE not in files:
            return None
        return checkpoint_facts(files, path.parent)._replace(averaged=path.name == EMA_FILE)
    text = filetype.read_header(path).metadata.get(METADATA_KEY)
    return told_in(text, f"{path}: its header") if text else None


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


def _open(told: Told, weights: Path, title: str, entry: ReleasedCheckpoint | None = None) -> Opened:
    model = recorded_networks.recorded(told.recipe, told.structure)
    load_weights(model, weights)
    return Opened(model.eval(), told.recipe, told.card, title, entry, told.averaged)


def _open_released(path: Path, recipe: Recipe | None) -> Opened:
    # with a recipe the user says which network it is; else the registry may know the layout
    inspected = inspect(path)
    entry = identify(inspected, load_registry()) if recipe is None else None
    if entry is not None:
        recipe = load_recipe(find_recipe(entry.recipe))
    if recipe is None:
        raise UnnamedNetworkError(
            f"{path}: is none of the released networks, so say with --recipe which network it"
            " is for"
        )
    if not recipe.model.is_ours:
        return open_unnamed(path, recipe)
    with tempfile.TemporaryDirectory(prefix="dgcctl-") as folder:
        weights = Path(folder, MODEL_FILE)
        network, arguments = recipe.model.name, recipe.model.kwargs()
        found = convert(inspected, network, weights, arguments=arguments, origin=str(path))
        # one of our own exports in the released format knows more than the recipe
        text = found.record["facts"].get(METADATA_KEY)
        if isinstance(text, str):  # one of our own exports
            told = told_in(text, f"{path}: its record")
            own = _same_network(path, told.recipe, recipe)
            return _open(told._replace(recipe=own), weights, path.name)
        card = (
            card_of(recipe)
            if entry is None
            else replace(card_of(recipe), preprocessing=entry.preprocessing)
        )
        return _open(Told(recipe, card), weights, entry.name if entry else path.name, entry)
