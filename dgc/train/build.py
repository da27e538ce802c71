"""From a recipe to what trains: the model, its loaders. The only place that knows
both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dgc.data import Images, ImageSet, Loader, data_dir, eval_loader, open_images, train_loader
from dgc.errors import UsageError
from dgc.hub import recorded_networks
from dgc.layers import set_backend
from dgc.layers.backend import unavailable
from dgc.recipe.load import Recipe
from dgc.run.files import read_json
from dgc.train.memory_format import FORMATS, Format, choose

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(
    recipe: Recipe,
    device: torch.device,
    world_size: int = 1,
    layout: Format | None = None,
    structure: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The recipe's network on a device, in its dtype and memory format (`layout`; None: as the
    recipe chooses), freshly initialised from torch's generator; with `structure` (of a checkpoint)
    the network that was recorded.
    """
    if structure is None:
        return placed(
            recorded_networks.fresh(recipe, weights=False).model, recipe, device, world_size, layout
        )
    return placed(recorded_networks.recorded(recipe, structure), recipe, device, world_size, layout)


def placed(
    model: nn.Module,
    recipe: Recipe,
    device: torch.device,
    world_size: int = 1,
    layout: Format | None = None,
) -> nn.Module:
    """A network on its device, in the recipe's dtype, memory format and way of computing."""
    apply_backend(model, recipe, device)
    if recipe.train.sync_batchnorm and world_size > 1:
        if device.type != "cuda":
            raise UsageError(
                "train.sync_batchnorm = true needs CUDA devices (PyTorch has none for the CPU): set"
                " it false"
            )
        # before it is moved: conversion makes new modules
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    memory_format = FORMATS[layout or choose(recipe, device)]
    return model.to(device=device, dtype=DTYPES[recipe.train.dtype]).to(memory_format=memory_format)


def check_backend(recipe: Recipe, device: torch.device) -> None:
    """Raise UsageError where the recipe's backend cannot be had on this device."""
    backend = recipe.train.backend
    if why := unavailable(backend, device.type):
        raise UsageError(f"train.backend = {backend}: {why}: set train.backend = auto")


def check_compile(recipe: Recipe, device: torch.device, world_size: int) -> None:
    """Raise UsageError where the recipe's step cannot be a CUDA graph."""
    if recipe.train.compile != "reduce-overhead":
        return
    where = f"train.compile = {recipe.train.compile}"
    if device.type != "cuda":
        raise UsageError(
            f"{where} needs a CUDA device (the step becomes a CUDA graph), and this one is"
            f" {device.type}: set train.compile = false"
        )
    if world_size > 1:
        raise UsageError(
            f"{where} is for one process, and {world_size} were started: use --nproc-per-node 1, or"
            " set train.compile = false"
        )


def apply_backend(model: nn.Module, recipe: Recipe, device: torch.device) -> None:
    """Let `model` compute as the recipe says, where this device can. Elsewhere it stays as it is:
    somebody evaluates or counts here what another machine trained.
    """
    if not unavailable(recipe.train.backend, device.type):
        set_backend(model, recipe.train.backend)


@dataclass(frozen=True)
class Data:
    """This rank's loaders, the sizes of the whole sets, and data.json's facts."""

    train: Loader
    val: Loader
    train_samples: int
    val_samples: int
    facts: dict[str, Any]


def open_data(recipe: Recipe) -> Images:
    """The recipe's images. Raises DataError (with what to do)
    where they are missing or do not fit.
    """
    options = recipe.data.model_dump(exclude={"mean", "std", "workers"})
    return open_images(**options, num_classes=recipe.model.num_classes)


def at_its_place(recipe: Recipe, data_json: Path, given: Path | None = None) -> Recipe:
    """The recipe with its images' folder (and quarantine file)
    where a run found them, from wherever it is read.

    A relative data.dir means another folder in another working directory, so the absolute one that
    the run recorded goes before it, while it is there; `given` goes before both.
    """
    # only what the run knew as relative: an absolute path is the user's word
    changes = {} if given is None else {"dir": str(given)}
    recorded = read_json(data_json) if data_json.is_file() else {}
    for key, present in (
        ("dir", recipe.data.dir or not _at_hand(recipe)),
        ("quarantine", recipe.data.quarantine),
    ):
        place = recorded.get(key)
        relative = present is True or (
            isinstance(present, str) and not Path(present).expanduser().is_absolute()
        )
        if relative and isinstance(place, str) and Path(place).exists():
            changes.setdefault(key, place)
    return (
        recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})
        if changes
        else recipe
    )


def _at_hand(recipe: Recipe) -> bool:
    """Whether a data set that names no folder of its own lies where it is looked for now."""
    return recipe.data.name == "fashion_mnist" or data_dir(recipe.data.name).is_dir()


def build_data(
    recipe: Recipe,
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    images: Images | None = None,
) -> Data:
    """Loaders of one rank over `images` (default:
    the recipe's), normalised on `device` in the recipe's dtype.
    """
    images = images or open_data(recipe)
    train, batch = recipe.train, recipe.train.batch_size
    common = _loading(recipe, device, rank, world_size)
    return Data(
        train_loader(
            images.train, seed=recipe.seed, batch_size=batch, accumulate=train.accumulate, **common
        ),
        eval_batches(recipe, images.val, device, rank, world_size),
        len(images.train),
        len(images.val),
        data_facts(images, recipe),
    )


def eval_batches(
    recipe: Recipe, images: ImageSet, device: torch.device, rank: int = 0, world_size: int = 1
) -> Loader:
    """One rank's share of `images`, as the recipe's evaluation sees them."""
    common = _loading(recipe, device, rank, world_size)
    return eval_loader(images, batch_size=recipe.eval.batch_size, **common)


def _loading(recipe: Recipe, device: torch.device, rank: int, world_size: int) -> dict[str, Any]:
    """What both halves are read with."""
    return {
        "mean": recipe.data.mean,
        "std": recipe.data.std,
        "rank": rank,
        "world_size": world_size,
        "workers": recipe.data.workers,
        "device": device,
        "dtype": DTYPES[recipe.train.dtype],
    }


def data_facts(images: Images, recipe: Recipe | None = None) -> dict[str, Any]:
    """data.json: what `Images.describe` says, one digest over both halves,
    and the places as the recipe names them.
    """
    facts = images.describe()
    # of both halves: a run whose held-out images changed did not see the same data
    both = "".join(facts[half]["sha256"] for half in ("train", "val"))
    digest = {"digest": hashlib.sha256(both.encode()).hexdigest()}
    if recipe is None:
        return {**digest, **facts}
    # absolute: from another working directory a relative path would be another folder
    listed = recipe.data.quarantine
    places = {
        "dir": str(images.dir.absolute()) if images.dir else None,
        "dir_given": recipe.data.dir,
        "quarantine": str(Path(listed).absolute()) if listed else None,
    }
    return {**digest, **facts, **places}


def compile_model(model: nn.Module) -> nn.Module:
    """The model as torch.compile calls it (fixed shapes: a short last batch is a second graph)."""
    return torch.compile(model)  # type: ignore[return-value]
