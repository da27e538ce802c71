"""Sets of images: in memory, or files in a folder. Each gives a batch of pixels and labels for a
list of indices.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dgc.data import transforms
from dgc.data.rng import Indices, Uniforms, uniforms
from dgc.data.transforms import Pixels
from dgc.errors import DataError
from dgc.run.class_folders import verify_command
from dgc.run.file_names import written
from dgc.runtime.image_file import quiet, read_rgb

Augment = Literal["none", "crop_flip", "resized_crop_flip"]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """How the images are seen. In evaluation `augment` is none, and nothing is drawn at random.
    `grey`: image files are made grey, and given as RGB.
    """

    augment: Augment = "none"
    image_size: int = 32
    crop_padding: int = 4
    resize: int | None = None
    grey: bool = False
    rand_augment: int = 0  # operations an image
    rand_augment_magnitude: int = 9
    random_erasing: float = 0.0  # its probability


class ImageSet(ABC):
    """`labels` (N,) int64, and pixels by index."""

    labels: Labels
    view: View = View()  # seen as they are, unless a set says otherwise

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def pixels(self, seed: int, epoch: int, indices_B: Indices) -> Pixels:
        """(B, S, S, C) uint8, C = 1 or 3, augmented with f(seed,
        epoch, index) where the view says so.
        """

    @abstractmethod
    def name_of(self, index: int) -> str:
        """What a user would call sample `index`: a path, or a place in a set."""


class ArraySet(ImageSet):
    """Images in memory: images_NHWC uint8. The tensor goes to workers through shared memory."""

    def __init__(self, name: str, images_NHWC: Pixels, labels_N: Labels, view: View) -> None:
        self.name, self.view, self.labels = name, view, labels_N
        self.images = torch.from_numpy(np.ascontiguousarray(images_NHWC))

    def pixels(self, seed: int, epoch: int, indices_B: Indices) -> Pixels:
        batch: Pixels = self.images.numpy()[indices_B]
        if self.view.augment == "none":
            return batch
        draws = uniforms(seed, epoch, indices_B, transforms.CROP_FLIP_DRAWS)
        return transforms.crop_flip(batch, draws, self.view.crop_padding)

    def name_of(self, index: int) -> str:
        return f"{self.name}[{index}]"


class FolderSet(ImageSet):
    """Image files. Their names are one array of bytes:
    a million Python strings would be copied to each worker.
    """

    def __init__(self, root: Path, names: list[str], labels_N: Labels, view: View) -> None:
        self.root, self.view, self.labels = root, view, labels_N
        self.names = np.array([os.fsencode(name) for name in names], np.bytes_)

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(bytes(self.names[index]))

    def name_of(self, index: int) -> str:
        return written(str(self.path(index)))

    def refusal(self, index: int, reason: str) -> str:
        """The line for a sample that cannot be used."""
        return (
            f"{self.name_of(index)} (sample {index}): {reason}: mend or remove it, or list it in"
            f" data.quarantine; `{verify_command(self.root)}` finds all such files"
        )

    def pixels(self, seed: int, epoch: int, indices_B: Indices) -> Pixels:
        draws = uniforms(seed, epoch, indices_B, transforms.RESIZED_CROP_FLIP_DRAWS)
        size = self.view.image_size
        batch = np.empty((len(indices_B), size, size, 3), np.uint8)
        with quiet():
            for place, index in enumerate(indices_B):
                batch[place] = np.asarray(self._one(int(index), draws[place]))
        if self.view.augment == "crop_flip":
            return transforms.crop_flip(batch, draws, self.view.crop_padding)
        return batch

    def _one(self, index: int, draws: Uniforms) -> Image.Image:
        try:
            image = read_rgb(self.path(index))
        except DataError as error:
            raise DataError(self.refusal(index, str(error))) from error
        if self.view.augment == "resized_crop_flip":
            return transforms.resized_crop_flip(image, draws, self.view.image_size)
        image = transforms.fit(image, self.view.resize, self.view.image_size)
        return image.convert("L").convert("RGB") if self.view.grey else image
