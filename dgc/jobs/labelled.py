"""Which images an evaluation sees, and under which labels: those of the weights, by the names of
the classes.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgc.data import class_names
from dgc.data.describe import describe_set
from dgc.data.folder import check_left, raise_problems, read_quarantine, scan
from dgc.data.folder import notes as folder_notes
from dgc.data.image_sets import FolderSet, ImageSet, View
from dgc.data.sets import folder_set
from dgc.errors import DataError
from dgc.hub.load_weights import Opened
from dgc.recipe.load import Recipe
from dgc.run.file_names import written
from dgc.train import build

_WORDNET = re.compile(r"n\d{8}")  # how ImageNet's folders are called
# images of evaluation
_WHOLE = {"fashion_mnist": 1000, "cifar10": 10_000, "cifar100": 10_000, "imagenet": 50_000}
_NAMED = 5


@dataclass(frozen=True)
class Labelled:
    """Images with the labels of the weights, and the names of these.
    `place`: where they are, for a message.

    `elsewhere`: they are not the ones that the recipe names. `notes`: what a user should know of
    them, a line each.
    """

    images: ImageSet
    classes: tuple[str, ...]
    place: str
    data_set: str
    elsewhere: bool
    notes: tuple[str, ...] = ()


def known_classes(opened: Opened) -> tuple[str, ...]:
    """Names of the classes by label:
    as the weights' card has them, else of a known data set that fits; or ().
    """
    if opened.card.classes:
        return opened.card.classes
    # without a card the data set's own names, where their number fits
    names = class_names(opened.entry.classes if opened.entry else opened.recipe.data.name)
    return names if len(names) == opened.recipe.model.num_classes else ()


def as_the_weights_say(recipe: Recipe, opened: Opened) -> Recipe:
    """The recipe with the sizes and the normalisation that the card has."""
    how = opened.preprocessing
    changes = {"resize": how.resize, "image_size": how.image_size, "mean": how.mean, "std": how.std}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def open_labelled(
    opened: Opened, recipe: Recipe, folder: Path | None, limit: int | None, *, subset: bool = False
) -> Labelled:
    """The images to evaluate: the recipe's,
    or those in `folder` (a data folder, or one of class folders alone).

    Raises DataError where they cannot be read or their classes are not those of the weights; with
    `subset` it is enough that each of their classes is one.
    """
    recipe = _limited(recipe, limit)
    if folder is None or _is_archive(recipe, folder):
        return _open_own(opened, recipe, folder)
    return _open_folder(opened, recipe, folder, subset)


def _limited(recipe: Recipe, limit: int | None) -> Recipe:
    if limit is None:
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"limit_val": limit})})


def _is_archive(recipe: Recipe, folder: Path) -> bool:
    """Whether a folder given for CIFAR is one of its archive, and not of images."""
    return (
        recipe.data.name in ("cifar10", "cifar100")
        and not (folder / "val").is_dir()
        and not _looks_like(folder)
    )


def _looks_like(folder: Path) -> bool:
    """Whether there are folders with something in them, none of which is the archive's."""
    if not folder.is_dir():
        return False
    inner = [
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "cifar-"))
    ]
    return bool(inner)


def _open_own(opened: Opened, recipe: Recipe, folder: Path | None) -> Labelled:
    """The recipe's own data set (an archive may lie in another folder)."""
    if folder is not None:
        recipe = recipe.model_copy(
            update={"data": recipe.data.model_copy(update={"dir": str(folder)})}
        )
    found = build.open_data(recipe)
    place = written(str(found.dir or found.name))
    labels, note = match(found.folders or found.classes, opened, place, subset=False)
    # from the folder's order to the labels that the weights know
    found.val.labels = labels[found.val.labels]
    names = known_classes(opened) or found.classes
    notes = (*(line for _, line in found.notes()), *filter(None, [note]))
    return Labelled(found.val, names, place, recipe.data.name, False, notes)


def _open_folder(opened: Opened, recipe: Recipe, folder: Path, subset: bool) -> Labelled:
    parent, split = _split(folder)
    data = recipe.data
    listing = scan(
        parent, split, read_quarantine(Path(data.quarantine) if data.quarantine else None)
    )
    raise_problems([listing])
    check_left([listing])
    view = View(
        "none", data.image_size, data.crop_padding, data.resize, opened.preprocessing.channels == 1
    )
    images = folder_set(parent, listing, view, data.limit_val)
    place = written(str(parent / split))
    names = tuple(map(written, listing.classes))
    try:
        labels, note = match(names, opened, place, subset=subset)
    except DataError as error:
        raise _one_level_down(opened, parent / split) or error from error
    images.labels = labels[images.labels]
    left_out = [line for _, line in folder_notes(listing.quarantined, listing.skipped)]
    return Labelled(
        images,
        known_classes(opened) or names,
        place,
        data.name,
        True,
        (*left_out, *filter(None, [note])),
    )


def _split(folder: Path) -> tuple[Path, str]:
    """(data folder, name of its half) of a folder with val/<class>/, or of class folders alone."""
    folder = folder.absolute()
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder: --data-dir takes one with val/<class>/<image>, or with"
            " <class>/<image>"
        )
    if (folder / "val").is_dir() or (folder / "train").is_dir():
        return folder, "val"
    if not _looks_like(folder):
        raise DataError(
            f"{folder}: no class folders in it: --data-dir takes a folder with val/<class>/<image>,"
            " or with <class>/<image>"
        )
    return folder.parent, folder.name


def _one_level_down(opened: Opened, folder: Path) -> DataError | None:
    """An error where what was taken for class folders holds those of the network
    (`data/test/<class>`); else None.
    """
    known = set(map(_key, opened.card.folders or known_classes(opened)))
    halves = [
        path
        for path in sorted(folder.iterdir())
        if path.is_dir()
        and os.access(path, os.R_OK)
        and known & {_key(inner.name) for inner in path.iterdir()}
    ]
    if not halves:
        return None
    return DataError(
        f"{written(str(folder))}: the class folders lie one level down, in"
        f" {_some([written(path.name) for path in halves])}: name that folder, as --data-dir"
        f" {written(str(halves[0]))}"
    )


# --- names ----------------------------------------------------------------------------------------


def match(found: Sequence[str], opened: Opened, place: str, *, subset: bool) -> tuple[Any, str]:
    """(for each class found in `place` its label among the weights' classes, what to say of it).

    Raises DataError naming what differs, and on which side.
    """
    classes = opened.recipe.model.num_classes
    known = opened.card.folders or known_classes(opened)
    # Without names there is only the order. ImageNet's folders are called by WordNet's numbers,
    # which sort as the network's labels do.
    if not known or _wordnet(found, known):
        if len(found) != classes:
            raise DataError(
                f"{place}: {len(found)} classes, but the network has {classes}, and what they are"
                " called was not recorded with its weights: give a folder with all of them"
            )
        said = (
            ""
            if known
            else (
                f"{opened.title} does not say what its classes are called: labels go by the"
                " folders' order"
            )
        )
        return np.arange(classes), said
    # the last of equal names is in the mapping: others with that name are found by comparing
    labels = {_key(name): label for label, name in enumerate(known)}
    twice = [name for label, name in enumerate(known) if labels[_key(name)] != label]
    # Names may repeat (ImageNet has two classes `crane`); it matters only where one of them is to
    # be found by its name.
    if twice and set(map(_key, twice)) & set(map(_key, found)):
        raise DataError(
            f"{place}: the network has several classes called {_some(twice)}: names cannot tell"
            " them apart"
        )
    strange = [name for name in found if _key(name) not in labels]
    missing = [name for name in known if _key(name) not in set(map(_key, found))]
    if strange or (missing and not subset):
        raise DataError(_difference(place, strange, missing, classes))
    note = (
        f"{len(found)} of the network's {classes} classes are evaluated; it may answer any"
        if missing
        else ""
    )
    return np.array([labels[_key(name)] for name in found]), note


def _wordnet(found: Sequence[str], known: Sequence[str]) -> bool:
    """Whether folders are called by ImageNet's numbers,
    and the network's classes by their words: the order is one.
    """
    return (
        len(known) == 1000
        and all(map(_WORDNET.fullmatch, found))
        and not any(map(_WORDNET.fullmatch, known))
    )


def _key(name: str) -> str:
    """What two spellings of a name have in common:
    file systems differ in accents, and no folder has a slash.
    """
    # composed: macOS decomposes accents, Linux keeps what was written
    return unicodedata.normalize("NFC", name).replace("/", "_")


def _difference(place: str, strange: Sequence[str], missing: Sequence[str], classes: int) -> str:
    sides = [f"only in the folder: {_some(strange)}"] if strange else []
    sides += [f"only in the network: {_some(missing)}"] if missing else []
    hint = "" if strange else "; --subset evaluates the classes that are there"
    return f"{place}: its classes are not the network's {classes} ({'; '.join(sides)}){hint}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(name if name.isprintable() else ascii(name) for name in names[:_NAMED]) + more


# --- which images these are -----------------------------------------------------------------------


def images_facts(opened: Opened, whole: Labelled, evaluated: int) -> dict[str, Any]:
    """Name, absolute folder and number of the images,
    and whether they are those that the weights' card names.

    `whole`: all of them, also where --limit leaves some out. `half`: what a lone folder of classes
    is called, `val` in a whole data folder. `same` is None where nothing was recorded.
    """
    place = None if whole.place == whole.data_set else str(Path(whole.place).absolute())
    facts: dict[str, Any] = {
        "name": whole.data_set,
        "dir": place,
        "samples": evaluated,
        "half": _half(whole.images),
        "same": None,
    }
    card = opened.card.data or {}
    if not card.get("sha256"):
        return facts
    found = _as_recorded(whole)
    facts |= {"sha256": found["sha256"], "digest_of": found["digest_of"], "whole": found["samples"]}
    recorded = {"recorded_samples": card.get("samples"), "recorded_sha256": card["sha256"]}
    return {**facts, **recorded, "same": found["sha256"] == card["sha256"]}


def _half(images: ImageSet) -> str | None:
    if not isinstance(images, FolderSet):
        return None
    return written(os.fsdecode(bytes(images.names[0])).partition("/")[0])


def _as_recorded(whole: Labelled) -> dict[str, Any]:
    """What is recorded of a set of images. Names of files go into its digest, and so does that of
    their folder: a training evaluates on `val`, and a copy is called anything.
    """
    return describe_set(whole.images, len(whole.classes), half="val")


# --- what is expected -----------------------------------------------------------------------------


def why_not_judged(opened: Opened, labelled: Labelled, limit: int | None) -> str:
    """Why what the recipe or the authors' table expects does not hold
    for these images; empty where it does.

    It was made for certain images: those that the weights' card names by digest, else those of the
    data set, all of them.
    """
    if limit is not None:
        return "--limit leaves images out"
    recorded = (opened.card.data or {}).get("sha256")
    if recorded:
        same = _as_recorded(labelled)["sha256"] == recorded
        return "" if same else f"it was made for other images than {labelled.place}"
    # no card: the number of images is all that can be compared
    count, whole = len(labelled.images), _WHOLE.get(labelled.data_set)
    if labelled.elsewhere and count != whole:
        full = f"the {whole:,} images" if whole else "the images"
        return f"it was made for {full} of {labelled.data_set}, and {labelled.place} has {count:,}"
    return ""
