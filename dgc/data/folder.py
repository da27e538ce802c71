"""Image folders: DIR/{train,val}/<class>/..., the layout of ImageNet. Finds the images; reads none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dgc.data.image_file import EXTENSIONS
from dgc.errors import DataError

SPLITS = ("train", "val")


class Problem(NamedTuple):
    """A file or folder that cannot be used (its name relative to the data folder), and why."""

    file: str
    reason: str


@dataclass
class Listing:
    """The images of one split: names relative to the data folder, `/` between the parts, sorted; and their classes."""

    root: Path
    split: str
    quarantine: frozenset[str] = frozenset()
    classes: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)

    def problem(self, name: str, reason: str) -> None:
        if name in self.quarantine:
            self.quarantined.append(name)
        else:
            self.problems.append(Problem(name, reason))


def scan(root: Path, split: str, quarantine: frozenset[str] = frozenset()) -> Listing:
    """List a split; everything that is wrong with its folders is in `problems`, nothing is raised."""
    listing = Listing(root, split, quarantine)
    above = _identity(root), _identity(root / split)
    folders = [entry.name for entry in _entries(listing, split) if _is_dir(listing, entry, split)]
    if not folders and not listing.problems:
        listing.problem(split, f"no class folder in it: images are expected at {root / split}/<class>/<image>.jpg")
    for name in folders:
        listing.classes.append(name)
        before = _found(listing)
        for image in _walk(listing, f"{split}/{name}", above):
            if image in quarantine:
                listing.quarantined.append(image)
            else:
                listing.names.append(image)
                listing.labels.append(len(listing.classes) - 1)
        if _found(listing) == before:
            listing.problem(f"{split}/{name}", "0 images in this class folder: fill it or remove it")
    return listing


def _found(listing: Listing) -> int:
    return len(listing.names) + len(listing.quarantined) + len(listing.problems)


def _identity(folder: Path) -> tuple[int, int]:
    try:
        facts = folder.stat()
    except OSError:
        return 0, 0  # whoever lists it says why
    return facts.st_dev, facts.st_ino


def _entries(listing: Listing, name: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(listing.root / name) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        listing.problem(name, f"cannot list this folder ({os.strerror(error.errno or 0)})")
        return []


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _is_dir(listing: Listing, entry: os.DirEntry[str], name: str) -> bool:
    """Whether an entry of folder `name` is a folder. A link to itself is a problem, unless its name is an image's."""
    if entry.name.startswith("."):
        return False
    try:
        return entry.is_dir()
    except OSError as error:
        if not _is_image(entry.name):  # an image is reported where it is read
            listing.problem(f"{name}/{entry.name}", f"cannot be followed ({os.strerror(error.errno or 0)})")
        return False


def _walk(listing: Listing, name: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    here = _identity(listing.root / name)
    if here in above:
        listing.problem(name, "a symbolic link that leads back to a folder above it")
        return
    for entry in _entries(listing, name):
        inner = f"{name}/{entry.name}"
        if _is_dir(listing, entry, name):
            yield from _walk(listing, inner, (*above, here))
        elif _is_image(entry.name):
            yield inner


def raise_problems(listings: Sequence[Listing]) -> None:
    """Raise DataError with the first problem and the number of the others."""
    problems = [(listing.root / problem.file, problem.reason) for listing in listings for problem in listing.problems]
    if not problems:
        return
    path, reason = problems[0]
    more = f" (and {len(problems) - 1} more like this)" if len(problems) > 1 else ""
    raise DataError(f"{path}: {reason}{more}; `dgcctl data verify` lists all that is wrong")


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
