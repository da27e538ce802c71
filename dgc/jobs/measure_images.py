"""`python -m dgc.jobs.measure_images --data-dir FOLDER --json OUT`: what a recipe has to know of a
folder of images.

OUT = {"classes", "train", "val", "side" (median of the shorter sides), "image_size", "resize",
"mean", "std" (of the pixels / 255, per channel, as evaluation sees them), "measured"}. At most
SAMPLES images are read, spread over the training set.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from dgc.data import open_images
from dgc.data.image_sets import FolderSet, View
from dgc.data.rng import Indices, subset
from dgc.errors import DataError
from dgc.jobs.reply import reply
from dgc.runtime.image_file import read_rgb
from dgc.talk import run_program

SAMPLES, SIDES = 1000, 200  # images whose pixels are read; of these, whose sizes
# up to this shorter side -> images of this size; larger ones as the paper's ImageNet
SIZES = ((48, 32), (96, 64), (176, 128))
LARGE, LARGE_RESIZE = 224, 256


def measure(folder: Path) -> dict[str, Any]:
    """Raises DataError where the folder is none of {train,val}/<class>/<image>."""
    whole = open_images(name="image_folder", dir=folder)
    train = whole.train
    assert isinstance(train, FolderSet)
    few = subset(len(train), SAMPLES)
    side = int(np.median([_side(train, int(index)) for index in few[:: -(-len(few) // SIDES)]]))
    size = next((size for most, size in SIZES if side <= most), LARGE)
    resize = LARGE_RESIZE if size == LARGE else size
    train.view = View("none", size, resize=resize)
    mean, std = _statistics(train, few)
    return {
        "classes": len(whole.classes),
        "train": len(train),
        "val": len(whole.val),
        "side": side,
        "image_size": size,
        "resize": resize,
        "mean": mean,
        "std": std,
        "measured": len(few),
    }


def _side(images: FolderSet, index: int) -> int:
    try:
        return min(read_rgb(images.path(index)).size)
    except DataError as error:
        raise DataError(images.refusal(index, str(error))) from error


def _statistics(images: FolderSet, few: Indices) -> tuple[list[float], list[float]]:
    sums, squares, pixels = np.zeros(3), np.zeros(3), 0
    for first in range(0, len(few), 50):
        batch = images.pixels(0, 0, few[first : first + 50]).reshape(-1, 3) / 255
        sums, squares, pixels = (
            sums + batch.sum(0),
            squares + (batch**2).sum(0),
            pixels + len(batch),
        )
    mean = sums / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 1e-6))
    return [round(float(x), 4) for x in mean], [round(float(x), 4) for x in std]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.measure_images")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    return reply(given.json, lambda: measure(given.data_dir))


if __name__ == "__main__":
    run_program(main)
