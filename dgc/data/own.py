"""A data set of the user's own: `data.name: python:package.module:build`.

`build(split, **args)`, split being train or val, gives either (images, labels) in memory, images
(N, H, W, C) uint8 with C = 1 or 3, or an object with `labels` (N whole numbers) whose item i is
image i, (H, W, C) uint8 of any size. It may have `classes` (names by label) and `digest()` (a
text that changes where the content does).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from dgc.data import transforms
from dgc.data.image_sets import ArraySet, ImageSet, Labels, View
from dgc.data.rng import Indices, subset, uniforms
from dgc.data.transforms import Pixels
from dgc.errors import DataError, DgcError
from dgc.run import trusted_code

KEY = "data.name"
SPLITS = ("train", "val")
UNCHECKED = "labels (content not checked)"


class OwnSet(ImageSet):
    """Images that an object of the user's gives one by one. `chosen`: which of them are used."""

    def __init__(
        self, name: str, source: Any, labels_N: Labels, chosen: Indices, view: View
    ) -> None:
        self.name, self.source, self.view = name, source, view
        self.chosen, self.labels = chosen, labels_N[chosen]

    def pixels(self, seed: int, epoch: int, indices_B: Indices) -> Pixels:
        draws = uniforms(seed, epoch, indices_B, transforms.RESIZED_CROP_FLIP_DRAWS)
        size = self.view.image_size
        batch = np.empty((len(indices_B), size, size, 3), np.uint8)
        for place, index in enumerate(indices_B):
            image = self._image(int(index))
            if self.view.augment == "resized_crop_flip":
                image = transforms.resized_crop_flip(image, draws[place], size)
            else:
                image = transforms.fit(image, self.view.resize, size)
            batch[place] = np.asarray(image)
        if self.view.augment == "crop_flip":
            return transforms.crop_flip(batch, draws, self.view.crop_padding)
        return batch

    def _image(self, index: int) -> Image.Image:
        with _in_one_line(self.name, self.name_of(index)):
            pixels = np.asarray(self.source[int(self.chosen[index])])
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise DataError(
                f"{self.name_of(index)}: is {pixels.dtype} {pixels.shape}, and should be uint8"
                " (height, width, 1 or 3)"
            )
        grey = pixels.shape[2] == 1
        return Image.fromarray(pixels[..., 0] if grey else pixels).convert("RGB")

    def name_of(self, index: int) -> str:
        return f"{self.name}[{int(self.chosen[index])}]"

    def digest(self) -> tuple[str, str]:
        """(what went into it, SHA-256)."""
        made = hashlib.sha256(self.labels.tobytes())
        # two recipes that use other parts of one source saw other data
        made.update(self.chosen.tobytes())
        own = getattr(self.source, "digest", None)
        if not callable(own):
            return UNCHECKED, made.hexdigest()
        with _in_one_line(self.name, f"{self.name}: digest()"):
            made.update(str(own()).encode())
        return "its own digest()", made.hexdigest()


def open_own(
    name: str,
    args: Mapping[str, Any],
    views: tuple[View, View],
    limits: tuple[int | None, int | None],
    num_classes: int | None,
) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    """Training and validation images, and the names of the classes.

    Raises UnsafeFileError (5) where the code is not trusted, DataError (3) for what is no data set.
    """
    build = trusted_code.load(KEY, name)
    made = [_half(name, build, split, args) for split in SPLITS]
    with _in_one_line(name, name):
        classes = _classes(name, made, num_classes)
        first, second = (
            _set(f"{name} {split}", half, view, limit, len(classes))
            for split, half, view, limit in zip(SPLITS, made, views, limits, strict=True)
        )
    return first, second, classes


def _half(name: str, build: Any, split: str, args: Mapping[str, Any]) -> Any:
    with _in_one_line(name, f"{name}({split!r})"):
        return build(split, **args)


@contextlib.contextmanager
def _in_one_line(name: str, what: str) -> Iterator[None]:
    """What the user's code raises, or makes NumPy raise, as a DataError with its place."""
    # the user's code may raise anything; a traceback into our package would only mislead
    try:
        yield
    except DgcError:
        raise
    except Exception as error:
        raise DataError(f"{what}: {trusted_code.fault(name, error)}") from error


def _classes(name: str, made: Sequence[Any], num_classes: int | None) -> tuple[str, ...]:
    # told by either half, else counted: numbers from 0 on are names enough
    told = next((h.classes for h in made if getattr(h, "classes", None) is not None), ())
    highest = max((int(_labels(name, half).max(initial=-1)) for half in made), default=-1)
    classes = tuple(map(str, told)) or tuple(map(str, range(num_classes or highest + 1)))
    if num_classes is not None and len(classes) != num_classes:
        raise DataError(
            f"{name}: has {len(classes)} classes, but the network has {num_classes}: set"
            f" model.num_classes={len(classes)}"
        )
    if highest >= len(classes):
        raise DataError(
            f"{name}: label {highest} is none of {len(classes)} classes (0 is the first)"
        )
    return classes


def _labels(name: str, half: Any) -> Labels:
    given = half[1] if _in_memory(half) else getattr(half, "labels", None)
    labels = np.asarray(given if given is not None else [])
    # bool is no np.integer, and a label that is a float was a mistake somewhere
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{name}: gives {type(half).__name__}, and should give (images, labels), or an object"
            " with labels (whole numbers) whose items are images"
        )
    if int(labels.min()) < 0:
        raise DataError(f"{name}: label {int(labels.min())}: labels count from 0")
    return labels.astype(np.int64)


def _in_memory(half: Any) -> bool:
    return isinstance(half, tuple) and len(half) == 2


def _set(name: str, half: Any, view: View, limit: int | None, classes: int) -> ImageSet:
    labels = _labels(name, half)
    # one random subset for both forms, as for the data sets that come with the package
    chosen = subset(len(labels), limit)
    if not _in_memory(half):
        return OwnSet(name, half, labels, np.asarray(chosen), view)
    images = np.asarray(half[0])
    fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] in (1, 3)
    if not fits or len(images) != len(labels):
        raise DataError(
            f"{name}: images are {images.dtype} {images.shape} with {len(labels)} labels, and"
            " should"
            " be uint8 (count, height, width, 1 or 3)"
        )
    if images.shape[1:3] != (view.image_size, view.image_size):
        raise DataError(
            f"{name}: images are {images.shape[1]} x {images.shape[2]}, and data.image_size ="
            f" {view.image_size}: set it to their size, or give them one by one"
        )
    return ArraySet(name, images[chosen], labels[chosen], view)
