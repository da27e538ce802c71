"""What is recorded of a set of images: how many, of which class, and a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dgc.data.image_sets import ArraySet, FolderSet, ImageSet
from dgc.data.own import OwnSet
from dgc.errors import DataError
from dgc.runtime import image_file

T = TypeVar("T")

# Above this a digest of every byte would hold up each start for minutes; `dgcctl data verify`
# computes it when asked.
MAX_CONTENT_BYTES = 256 << 20


def describe_set(images: ImageSet, num_classes: int) -> dict[str, Any]:
    """{"samples", "per_class", "sha256", "digest_of"};
    the last says whether all bytes or names and sizes went in.
    """
    kind, digest = content_digest(images)
    counts = np.bincount(images.labels, minlength=num_classes)
    return {
        "samples": len(images),
        "per_class": counts.tolist(),
        "sha256": digest,
        "digest_of": kind,
    }


def content_digest(images: ImageSet, *, full: bool = False) -> tuple[str, str]:
    """("content" | "names and sizes", SHA-256 in hex)
    of the samples and their labels, in their order.
    """
    if isinstance(images, ArraySet):
        digest = hashlib.sha256(images.images.numpy().tobytes())
        digest.update(images.labels.tobytes())
        return "content", digest.hexdigest()
    if isinstance(images, FolderSet):
        return _folder_digest(images, full)
    if isinstance(images, OwnSet):
        return images.digest()
    raise TypeError(f"no digest for a {type(images).__name__}")


def _folder_digest(images: FolderSet, full: bool) -> tuple[str, str]:
    sizes = [_of_file(images, index, _size) for index in range(len(images))]
    whole = full or sum(sizes) <= MAX_CONTENT_BYTES
    digest = hashlib.sha256(images.labels.tobytes())
    for index, size in enumerate(sizes):
        # names count: the labels alone would not tell two images that changed places
        digest.update(bytes(images.names[index]) + b"\0" + str(size).encode() + b"\0")
        if whole and size:
            digest.update(hashlib.sha256(_of_file(images, index, Path.read_bytes)).digest())
    return "content" if whole else "names and sizes", digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size


def _of_file(images: FolderSet, index: int, ask: Callable[[Path], T]) -> T:
    """What `ask` says of an image's file.
    Raises DataError naming a file that cannot be read at all.
    """
    try:
        return ask(images.path(index))
    except OSError as error:
        raise DataError(
            images.refusal(index, image_file.unreadable(images.path(index), error))
        ) from error
