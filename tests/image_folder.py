"""A small image folder of generated pictures, for the tests that need any images at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make(
    root: Path, classes: int = 3, train: int = 8, val: int = 5, size: tuple[int, int] = (40, 36)
) -> Path:
    """root/{train,val}/<class>/<n>.jpg, `train` and `val` images a class, each different."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (size[1] // 4, size[0] // 4, 3), np.uint8)
                Image.fromarray(pixels).resize(size).save(folder / f"{number:03d}.jpg")
    return root
