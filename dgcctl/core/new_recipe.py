"""A recipe for a folder of images: `dgcctl recipes new --data-dir FOLDER [--model NAME]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgc.recipe.dump import dump_tree
from dgc.recipe.load import parse_recipe
from dgc.recipe.schema import OURS

_SMALL = 64  # up to this size a network begins at full resolution, as on CIFAR


def text(folder: Path, model: str, found: Mapping[str, Any]) -> str:
    """The recipe, checked. `found`: what dgc.jobs.measure_images says of the folder."""
    # of a few hundred images, batches of 64 would be few steps an epoch
    batch_size = 64 if found["train"] >= 640 else 16
    tree = {
        "name": name_of(folder),
        "title": (
            f"images of {folder.name}: {found['classes']} classes, {found['train']:,} to train on"
        ),
        "source": "ours",
        "model": _model(model, found),
        "data": _data(folder, found),
        "optim": {"lr": _learning_rate(model, batch_size)},
        "train": {"epochs": 60, "batch_size": batch_size},
        "eval": {"batch_size": 100},
        "origin": {
            "data.mean": f"measured: {found['measured']:,} training images, pixels / 255",
            "data.std": f"measured: {found['measured']:,} training images, pixels / 255",
            "data.image_size": f"measured: the shorter side is {found['side']} in the median",
        },
    }
    written = dump_tree(tree)
    # what is written must load: a name or number of the folder may not fit a recipe
    parse_recipe(written, f"{tree['name']}.yaml")
    return written


def check_model(folder: Path, model: str) -> None:
    """Raise RecipeError for a network that no recipe may name, before any image is read."""
    # numbers that fit: only the network is in question
    grey = {"image_size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    text(folder, model, {"classes": 10, "train": 1, "measured": 1, "side": 32, **grey})


def name_of(folder: Path) -> str:
    """The name of the recipe of a folder: the folder's, as far as a name may hold it."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.absolute().name).strip("-.")
    return plain[:64] if plain and plain[0].isalnum() else "images"


def _model(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    common = {"name": name, "form": "dgc", "num_classes": found["classes"], "heads": 4}
    if name not in OURS:
        return {**common, "gate_factor": 0.5}
    stem = "cifar" if found["image_size"] <= _SMALL else "imagenet"
    own: dict[str, Any] = {**common, "stem": stem, "gate_factor": 0.5}
    if name == "dydensenet":
        own |= {"stages": [14, 14, 14], "growth": [8, 16, 32]}
    return own


def _learning_rate(model: str, batch_size: int) -> float:
    """That of the paper's recipes, in proportion to the batch (Goyal et al. 2017): dydensenet is
    trained on CIFAR at 0.1 with 64 images, the others on ImageNet at 0.1 with 256. At 0.1 for a
    small batch the gates of dyresnet18 overflow before BatchNorm's statistics have settled.
    """
    return round(0.1 * batch_size / (64 if model == "dydensenet" else 256), 6)


def _data(folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    small = found["image_size"] <= _SMALL
    return {
        "name": "image_folder",
        "dir": str(folder.absolute()),
        "augment": "crop_flip" if small else "resized_crop_flip",
        "image_size": found["image_size"],
        "resize": found["resize"],
        "mean": found["mean"],
        "std": found["std"],
    }
