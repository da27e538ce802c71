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


def describe_set(images: ImageSet, num_classes: int, half: str | None = None) -> dict[str, Any]:
    """{"samples", "per_class", "sha256", "digest_of"};
    the last says whether all bytes or names and sizes went in; `half` as in `content_digest`.
    """
    kind, digest = content_digest(images, half=half)
    counts = np.bincount(images.labels, minlength=num_classes)
    return {
        "samples": len(images),
        "per_class": counts.tolist(),
        "sha256": digest,
        "digest_of": kind,
    }


def content_digest(
    images: ImageSet, *, full: bool = False, half: str | None = None
) -> tuple[str, str]:
    """("content" | "names and sizes", SHA-256 in hex)
    of the samples and their labels, in their order.

    `half`: as if the folder that holds the classes were called so.
    """
    if isinstance(images, ArraySet):
        digest = hashlib.sha256(images.images.numpy().tobytes())
        digest.update(images.labels.tobytes())
        return "content", digest.hexdigest()
    if isinstance(images, FolderSet):
        return _folder_digest(images, full, half)
    if isinstance(images, OwnSet):
        return images.digest()
    raise TypeError(f"no digest for a {type(images).__name__}")


def _folder_digest(images: FolderSet, full: bool, half: str | None) -> tuple[str, str]:
    sizes = [_of_file(images, index, _size) for index in range(len(images))]
    whole = full or sum(sizes) <= MAX_CONTENT_BYTES
    digest = hashlib.sha256(images.labels.tobytes())
    for index, size in enumerate(sizes):
        # names count: the labels alone would not tell two images that changed places
        name = bytes(images.names[index])
        if half is not None:
            name = half.encode() + b"/" + name.partition(b"/")[2]
        digest.update(name + b"\0" + str(size).encode() + b"\0")
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
