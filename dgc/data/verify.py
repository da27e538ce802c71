"""Read every image of a data set and name all that cannot be used, in one pass."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dgc.data import cifar, folder
from dgc.data.describe import content_digest
from dgc.data.folder import Listing, Problem
from dgc.data.image_sets import View
from dgc.data.sets import (
    Images,
    check_there,
    data_dir,
    fashion_mnist_file,
    folder_set,
    no_folder,
    open_images,
)
from dgc.errors import DataError, UsageError
from dgc.run.file_names import unwritten, written
from dgc.runtime import image_file

_FASHION_MNIST_SHA256 = "5de05f4efcbb2713f7dbeeb1ba7286288c73937220f24d8e0c5b9212aa3732cb"
_CIFAR = ("cifar10", "cifar100")
_NOTHING: Mapping[str, Any] = {"samples": 0, "sha256": "", "digest_of": "nothing"}


def verify(name: str, given: str | Path | None = None, *, full: bool = False) -> dict[str, Any]:
    """{"name", "dir", "classes", "train", "val", "bad":
    [{"file", "reason"}]}; nothing is downloaded.

    Of an image folder also "turned", the number of images with an EXIF orientation (which nothing
    here applies), "in_both", pairs of equal images in train and val, and "skipped", the number of
    files that are no images by extension; "structure", what is wrong with the folders themselves,
    rows as of "bad".

    train and val hold {"samples", "sha256", "digest_of"} of what is good. `full`: digest of every
    byte, however many. Raises DataError only where there is nothing to look at.
    """
    if name in ("imagenet", "image_folder"):
        return _verify_folder(name, data_dir(name, given), full)
    if name not in _CIFAR and given is not None:
        raise UsageError(no_folder(given))
    root = data_dir(name, given) if name in _CIFAR else fashion_mnist_file().parent
    bad = _bad_cifar(name, root) if name in _CIFAR else _bad_fashion_mnist()
    facts = {"name": name, "dir": str(root), "bad": [problem.told() for problem in bad]}
    # nothing is opened that is damaged: the digests below would be of what is left of it
    if bad:
        return facts | {"classes": None} | dict.fromkeys(folder.SPLITS, _NOTHING)
    return facts | _good(
        open_images(name=name, dir=root if name in _CIFAR else None, download=False), full
    )


def _good(images: Images, full: bool) -> dict[str, Any]:
    return {"classes": len(images.classes)} | {
        split: (
            dict(zip(("digest_of", "sha256"), content_digest(half, full=full), strict=True))
            | {"samples": len(half)}
        )
        for split, half in (("train", images.train), ("val", images.val))
    }


def _bad_fashion_mnist() -> list[Problem]:
    file = fashion_mnist_file()
    got = hashlib.sha256(file.read_bytes()).hexdigest()
    if got == _FASHION_MNIST_SHA256:
        return []
    return [
        Problem(
            file.name,
            f"sha256 mismatch: expected {_FASHION_MNIST_SHA256}, got {got}: install dgcctl again",
        )
    ]


def _bad_cifar(name: str, root: Path) -> list[Problem]:
    source = cifar.source(name)
    if not (root / source.folder).is_dir():
        raise cifar.absent(source, root, "it was not downloaded yet")
    return [
        Problem(f"{source.folder}/{file}", reason) for file, reason in cifar.damaged(source, root)
    ]


def _verify_folder(name: str, root: Path, full: bool) -> dict[str, Any]:
    check_there(name, root)
    listings = [folder.scan(root, split) for split in folder.SPLITS]
    # a list: it is gone through twice
    looked = list(_look_at(root, listings))
    bad = [*(problem for listing in listings for problem in listing.problems)]
    bad += [Problem(written(name), reason) for name, reason, _ in looked if reason]
    bad += _odd_classes(root, listings)
    facts: dict[str, Any] = {"name": name, "dir": str(root), "classes": len(listings[0].classes)}
    facts["bad"] = [problem.told() for problem in bad if not problem.structural]
    facts["structure"] = [problem.told() for problem in bad if problem.structural]
    facts["turned"] = sum(turned for _, _, turned in looked)
    facts["in_both"] = _in_both(root, listings)
    facts["skipped"] = dict(sum((listing.skipped for listing in listings), Counter()))
    # a second listing, without what is bad: counts and digests are of what a training would see
    good = _without(root, listings, frozenset(unwritten(problem.file) for problem in bad))
    return facts | {listing.split: _facts(listing, full) for listing in good}


def _look_at(root: Path, listings: Sequence[Listing]) -> Iterator[tuple[str, str, bool]]:
    """(name, what is wrong with it, whether it has an EXIF orientation) of each image."""
    names = [name for listing in listings for name in listing.names]
    # decoding releases the interpreter lock
    with image_file.quiet(), ThreadPoolExecutor(os.cpu_count()) as threads:
        for name, seen in zip(
            names, threads.map(lambda name: _seen(root / name), names), strict=True
        ):
            yield name, *seen


def _seen(path: Path) -> tuple[str, bool]:
    try:
        return "", image_file.check(path)
    except DataError as error:
        return str(error), False


def _in_both(root: Path, listings: Sequence[Listing]) -> list[list[str]]:
    """[name in train, name in val] of images that lie in both halves, byte for byte: what is
    measured on them says nothing of new images.
    """
    # by size first, which is there without reading: few files have one that the other half has too
    halves = [_by(_size, root, listing.names) for listing in listings]
    sizes = set(halves[0]) & set(halves[1])
    sums = [_by(_sum, root, [name for size in sizes for name in half[size]]) for half in halves]
    # in the order of names in val, which is what the user will look at
    same = sorted(set(sums[0]) & set(sums[1]) - {None}, key=lambda found: sums[1][found])
    return [[written(sums[0][one][0]), written(name)] for one in same for name in sums[1][one]]


def _by(key: Callable[[Path], object], root: Path, names: Sequence[str]) -> dict[object, list[str]]:
    found: dict[object, list[str]] = {}
    for name in names:
        found.setdefault(key(root / name), []).append(name)
    return found


def _size(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        facts = path.stat()
        return facts.st_size if stat.S_ISREG(facts.st_mode) else None
    return None


def _sum(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return None


def _odd_classes(root: Path, listings: Sequence[Listing]) -> list[Problem]:
    if any(listing.problems for listing in listings):
        return []  # a missing folder would be told twice
    try:
        folder.check_classes(root, listings[0].classes, listings[1].classes, None)
    except DataError as error:
        return [Problem(".", str(error), structural=True)]
    return []


def _without(root: Path, listings: Sequence[Listing], bad: frozenset[str]) -> list[Listing]:
    return [folder.scan(root, listing.split, bad) for listing in listings]


def _facts(listing: Listing, full: bool) -> dict[str, Any]:
    kind, digest = content_digest(folder_set(listing.root, listing, View(), None), full=full)
    return {"samples": len(listing.names), "sha256": digest, "digest_of": kind}


def write_quarantine(path: Path, bad: Sequence[dict[str, str]]) -> None:
    """Write the bad files in the form that data.quarantine reads: name, tab, reason."""
    lines = [
        (
            "# file (relative to the data folder; \\n, \\t, \\\\ and \\xHH stand for bytes of its"
            " name), tab, reason"
        ),
        *(folder.quarantine_line(Problem(item["file"], item["reason"])) for item in bad),
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
