"""Image folders: DIR/{train,val}/<class>/..., the layout of ImageNet. Finds the images; reads none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dgc.data.image_file import EXTENSIONS
from dgc.errors import DataError

SPLITS = ("train", "val")


@dataclass
class Listing:
    """The images of one split: names relative to the data folder, `/` between the parts, sorted; and their classes."""

    classes: list[str]
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)  # links that lead back to a folder above them
    quarantined: list[str] = field(default_factory=list)


def scan(root: Path, split: str, quarantine: frozenset[str] = frozenset()) -> Listing:
    """List a split. Raises DataError: no such folder, not readable, no class folder, an empty class."""
    folder = root / split
    listing = Listing([entry.name for entry in _entries(folder) if _is_dir(entry)])
    if not listing.classes:
        raise DataError(f"{folder}: no class folder in it: images are expected at {folder}/<class>/<image>.jpg")
    for label, name in enumerate(listing.classes):
        before = len(listing.names) + len(listing.quarantined)
        for image in _walk(folder / name, f"{split}/{name}", listing.loops, ()):
            if image in quarantine:
                listing.quarantined.append(image)
            else:
                listing.names.append(image)
                listing.labels.append(label)
        if len(listing.names) + len(listing.quarantined) == before:
            raise DataError(f"{folder / name}: 0 images in this class folder: fill it or remove it")
    return listing


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise DataError(f"{folder}: cannot list this folder ({reason})") from error


def _is_dir(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise DataError(f"{entry.path}: cannot be read ({os.strerror(error.errno or 0)})") from error


def _walk(folder: Path, name: str, loops: list[str], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    facts = os.stat(folder)
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        loops.append(name)
        return
    for entry in _entries(folder):
        inner = f"{name}/{entry.name}"
        if _is_dir(entry):
            yield from _walk(folder / entry.name, inner, loops, (*above, here))
        elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
            yield inner


def check_classes(root: Path, train: list[str], val: list[str], num_classes: int | None) -> None:
    """Raise DataError where the splits name different classes, or not as many as the network has."""
    if train != val:
        odd = sorted(set(train) ^ set(val))
        raise DataError(
            f"{root}: train has {len(train)} classes and val {len(val)}; only in one of them: {', '.join(odd[:5])}"
        )
    if num_classes is not None and len(train) != num_classes:
        raise DataError(
            f"{root}: {len(train)} class folders in {root / 'train'}, but the network has {num_classes} classes: "
            f"set model.num_classes={len(train)} or give another folder with data.dir=FOLDER"
        )


def read_quarantine(file: Path | None) -> frozenset[str]:
    """The names in a quarantine file: one a line, relative to the data folder; `#` begins a comment."""
    if file is None:
        return frozenset()
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot read the quarantine file ({error})") from error
    return frozenset(line.split("\t")[0].strip() for line in lines if line.strip() and not line.startswith("#"))
