"""Open a data set by name: fashion_mnist (embedded), cifar10, cifar100, imagenet, image_folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dgc.data import cifar, folder, own
from dgc.data.classes import class_names
from dgc.data.describe import describe_set
from dgc.data.image_sets import ArraySet, Augment, FolderSet, ImageSet, Labels, View
from dgc.data.rng import subset
from dgc.data.transforms import Pixels
from dgc.errors import DataError, UsageError
from dgc.run import class_folders, trusted_code
from dgc.run.file_names import written

Name = Literal["fashion_mnist", "cifar10", "cifar100", "imagenet", "image_folder"]
NAMES = ("fashion_mnist", "cifar10", "cifar100", "imagenet", "image_folder")


@dataclass(frozen=True)
class Images:
    """The two halves of a data set.

    `classes` are the names by label, `quarantined` the files that were left out, `folders` the
    names of the class folders by label (where images lie in folders), all as `written`; `skipped`
    counts the files of the folder that are no images by extension; `doubts` are warnings about the
    folder.
    """

    name: str
    dir: Path | None
    train: ImageSet
    val: ImageSet
    classes: tuple[str, ...]
    quarantined: tuple[str, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    folders: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def notes(self) -> list[tuple[str, str]]:
        """(level, line) of what lies in the folder and is not used."""
        said = [("warning", doubt) for doubt in self.doubts]
        return said + folder.notes(self.quarantined, self.skipped)

    def describe(self) -> dict[str, Any]:
        """The record for data.json: counts and digests of what is used."""
        return {
            "name": self.name,
            "dir": str(self.dir) if self.dir else None,
            "classes": list(self.classes),
            "train": describe_set(self.train, len(self.classes)),
            "val": describe_set(self.val, len(self.classes)),
            "quarantined": list(self.quarantined),
            "skipped": dict(sorted(self.skipped.items())),
            **({"folders": list(self.folders)} if self.folders not in ((), self.classes) else {}),
        }


def data_dir(name: str, given: str | Path | None = None) -> Path:
    """The folder of a data set: as given, or $DGCCTL_DATA_DIR/<name>, or ./data/<name>."""
    return class_folders.place(name, given)


def open_images(
    *,
    name: str,
    dir: str | Path | None = None,
    augment: Augment = "none",
    image_size: int = 32,
    crop_padding: int = 4,
    rand_augment: int = 0,
    rand_augment_magnitude: int = 9,
    random_erasing: float = 0.0,
    resize: int | None = None,
    num_classes: int | None = None,
    limit_train: int | None = None,
    limit_val: int | None = None,
    download: bool = True,
    quarantine: str | Path | None = None,
    args: Mapping[str, Any] | None = None,
) -> Images:
    """Open a data set; the arguments are the keys
    of a recipe's `data` section (without mean, std, workers).

    Raises UsageError (an unknown name), DataError (absent, empty, another number of classes),
    IntegrityError, UnsafeFileError. Nothing is created where it fails.
    """
    # a user's function is known by its prefix; whether it may run is asked where it would
    if name not in NAMES and not trusted_code.is_own(name):
        raise UsageError(f"unknown data set {name!r}: there are {', '.join(NAMES)}")
    if name == "fashion_mnist" and dir is not None:
        raise UsageError(no_folder(dir))
    views = (
        View(
            augment,
            image_size,
            crop_padding,
            resize,
            rand_augment=rand_augment,
            rand_augment_magnitude=rand_augment_magnitude,
            random_erasing=random_erasing,
        ),
        # evaluation sees no augmentation, whatever the recipe trains with
        View("none", image_size, crop_padding, resize),
    )
    limits = limit_train, limit_val
    if trusted_code.is_own(name):
        return Images(name, None, *own.open_own(name, args or {}, views, limits, num_classes))
    if name in ("imagenet", "image_folder"):
        return _open_folder(name, data_dir(name, dir), views, limits, num_classes, quarantine)
    return _open_arrays(name, dir, views, limits, num_classes, download)


def no_folder(given: str | Path) -> str:
    """What is said of a folder that was given for the embedded data set."""
    return (
        f"{given}: fashion_mnist comes with the package and has no folder: did you mean"
        " data.name=image_folder?"
    )


def _open_arrays(
    name: str,
    given: str | Path | None,
    views: tuple[View, View],
    limits: tuple[int | None, int | None],
    num_classes: int | None,
    download: bool,
) -> Images:
    root = None if name == "fashion_mnist" else data_dir(name, given)
    classes = class_names(name)
    if num_classes is not None and num_classes != len(classes):
        raise DataError(
            f"{root or name}: {name} has {len(classes)} classes, but the network has {num_classes}"
        )
    halves = _fashion_mnist() if root is None else _cifar(name, root, download)
    sets = []
    for split, (images, labels), view, limit in zip(
        ("train", "test"), halves, views, limits, strict=True
    ):
        if view.image_size != images.shape[1]:
            raise DataError(
                f"{name}: data.image_size = {view.image_size}, but its images are {images.shape[1]}"
                " wide"
            )
        chosen = subset(len(labels), limit)
        sets.append(ArraySet(f"{name} {split}", images[chosen], labels[chosen], view))
    return Images(name, root, sets[0], sets[1], classes)


def fashion_mnist_file() -> Path:
    """The embedded subset: 5,000 + 1,000 images."""
    return Path(__file__).parent / "fashion_mnist" / "fashion_mnist_5k_1k.npz"


def _fashion_mnist() -> list[tuple[Pixels, Labels]]:
    """The embedded subset, padded with zeros from 28
    to 32 (as in the reference run): (N, 32, 32, 1).
    """
    margin = ((0, 0), (2, 2), (2, 2))
    with np.load(fashion_mnist_file(), allow_pickle=False) as arrays:
        # never a pickle, not even in a file of our own
        return [
            (np.pad(arrays[f"x_{split}"], margin)[..., None], arrays[f"y_{split}"].astype(np.int64))
            for split in ("train", "test")
        ]


def _cifar(name: str, root: Path, download: bool) -> list[tuple[Pixels, Labels]]:
    source = cifar.source(name)
    cifar.ensure(source, root, download=download)
    return [cifar.load(source, root, train=train) for train in (True, False)]


def _open_folder(
    name: str,
    root: Path,
    views: tuple[View, View],
    limits: tuple[int | None, int | None],
    num_classes: int | None,
    quarantine: str | Path | None,
) -> Images:
    check_there(name, root)
    names = folder.read_quarantine(Path(quarantine) if quarantine else None)
    listings = [folder.scan(root, split, names) for split in folder.SPLITS]
    folder.raise_problems(listings)
    folder.check_classes(root, listings[0].classes, listings[1].classes, num_classes)
    folder.check_left(listings)
    sets = [folder_set(root, *parts) for parts in zip(listings, views, limits, strict=True)]
    # a folder of 1,000 classes under the name imagenet is
    # taken for ImageNet; another number has no known names
    classes = class_names(name) if len(listings[0].classes) == 1000 else ()
    left_out = tuple(written(name) for listing in listings for name in listing.quarantined)
    skipped = listings[0].skipped + listings[1].skipped
    folders = tuple(map(written, listings[0].classes))
    doubts = (
        *folder.unmet(root, names, {name for listing in listings for name in listing.quarantined}),
        *folder.same_halves(root),
    )
    return Images(
        name, root, sets[0], sets[1], classes or folders, left_out, skipped, folders, doubts
    )


def folder_set(root: Path, listing: folder.Listing, view: View, limit: int | None) -> FolderSet:
    """The images of a listing, all or `limit` of them."""
    chosen = subset(len(listing.names), limit)
    return FolderSet(
        root,
        [listing.names[index] for index in chosen],
        np.array(listing.labels, np.int64)[chosen],
        view,
    )


def check_there(name: str, root: Path) -> None:
    """Raise DataError with what to do where the folder
    of an image-folder data set is missing or unreadable.
    """
    try:
        there = root.is_dir()
    except OSError as error:
        raise DataError(
            f"{written(str(root))}: cannot be looked at ({os.strerror(error.errno or 0)})"
        ) from error
    if not there:
        raise class_folders.missing(name, root)
    # is_dir says nothing of what lies in it: a folder may be there and closed
    if not os.access(root, os.R_OK | os.X_OK):
        raise DataError(
            f"{root}: this folder may not be read: change its permissions, or name another with"
            " data.dir"
        )
