"""What a plan file is to say beside its programs (classes, preprocessing), and where it is to lie:
held against the network before anything is written. A file that contradicts its own program would
only be found out by whoever runs it.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgc.errors import ArgumentError
from dgc.runtime.plan import Preprocessing

_NAMES = ("resize", "image_size", "mean", "std", "channels")
_MOST = 1 << 16  # pixels of a side: the reader's bound
Size = tuple[int, int, int]  # channels, height, width


def place_of(file: str | os.PathLike[str]) -> Path:
    """Where a file can be put. Raises ArgumentError."""
    path = Path(file)
    # os.path: what the system cannot look at is no folder; Path would raise.
    if os.path.isdir(path):
        raise ArgumentError(f"file: {path} is a folder: name a file in it")
    if not os.path.isdir(path.absolute().parent):
        raise ArgumentError(f"file: {path}: there is no folder {path.parent}: make it first")
    return path


def checked_classes(names: Sequence[str], answer: Sequence[int]) -> Sequence[str]:
    """Names for a network that answers with `answer` (its first size: classes).
    Raises ArgumentError.
    """
    if isinstance(names, str):
        raise ArgumentError(f"classes: should be a list of names, given the text {names!r}")
    for name in names:
        if not isinstance(name, str):
            raise ArgumentError(f"classes: should be a list of names, and {name!r} is none")
    if len(names) not in (0, answer[0]):
        raise ArgumentError(
            f"classes: {len(names)} names, and the network answers with {answer[0]} numbers: give"
            " one name for each, or none"
        )
    return names


def checked_preprocessing(given: Any, sizes: Sequence[Size]) -> Preprocessing | None:
    """A mapping, or whatever has its fields, for a network that takes images of `sizes`.
    Raises ArgumentError.
    """
    if given is None:
        return None
    channels = sizes[0][0]
    if channels not in (1, 3):
        raise _wrong(
            f"is for networks of 3 channels or 1, and this one takes {channels}: leave it out"
        )
    found = _fields(given, channels)
    of_file = _whole("channels", found["channels"])
    if of_file not in (1, 3) or of_file > channels:
        allowed = "1 or 3" if channels == 3 else "1, as the network takes"
        raise _wrong(f"channels {of_file}: should be {allowed}")
    side, resize = _whole("image_size", found["image_size"]), found["resize"]
    if not any(size[1:] == (side, side) for size in sizes):
        listed = ", ".join(f"{h} x {w}" for _, h, w in sizes)
        raise _wrong(
            f"image_size {side}: an image becomes {side} x {side}, the examples are {listed}"
        )
    resize = None if resize is None else _whole("resize", resize)
    if resize is not None and resize < side:
        raise _wrong(f"resize {resize}: should be image_size ({side}) or more, or None")
    mean, std = (_numbers(name, found[name], of_file) for name in ("mean", "std"))
    if min(std) <= 0:
        raise _wrong(f"std {std}: is divided by, so should be more than 0")
    if channels == 1 and (len({*mean}) > 1 or len({*std}) > 1):
        raise _wrong(
            "mean and std differ by channel, and the network takes 1: give one number each"
        )
    return Preprocessing(resize, side, mean, std, of_file)


def _fields(given: Any, channels: int) -> dict[str, Any]:
    found = {"channels": channels}
    if isinstance(given, Mapping):
        unknown = sorted(map(repr, set(given) - {*_NAMES, "crop"}))
        if unknown:
            raise _wrong(f"{unknown[0]} is unknown: it has {', '.join(_NAMES)}")
        if given.get("crop", "center") not in ("center", 1):
            raise _wrong(f"crop {given['crop']!r}: should be 'center', which is all there is")
        found |= given
    else:
        found |= {name: getattr(given, name) for name in _NAMES if hasattr(given, name)}
    missing = [name for name in _NAMES if name not in found]
    if missing:
        raise _wrong(f"{missing[0]} is missing: it has {', '.join(_NAMES)}")
    return found


def _whole(name: str, value: Any) -> int:
    try:
        found = operator.index(value)
    except TypeError:
        found = 0
    if not 1 <= found <= _MOST or isinstance(value, bool):
        raise _wrong(f"{name} {value!r}: should be a whole number from 1 to {_MOST:,}")
    return found


def _numbers(name: str, value: Any, channels: int) -> tuple[float, float, float]:
    """Three, which is what a file holds; of one number for a grey image, three times that."""
    try:
        found = [float(x) for x in value]
    except (TypeError, ValueError) as error:
        raise _wrong(f"{name} {value!r}: should be {channels} numbers") from error
    if channels == 1 and len(found) == 1:
        found *= 3
    if len(found) != 3:
        raise _wrong(f"{name}: {len(found)} numbers for an image of {channels} channels")
    if not all(map(math.isfinite, found)):
        raise _wrong(f"{name} {found}: should be finite")
    return found[0], found[1], found[2]


def _wrong(what: str) -> ArgumentError:
    return ArgumentError(f"preprocessing: {what}")
