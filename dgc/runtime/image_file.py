"""Read one image file, or say in a few words what is wrong with it."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dgc.errors import DataError

_EXTENSIONS = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".webp",
        ".ppm",
        ".pgm",
        ".tif",
        ".tiff",
        ".gif",
    }
)
_WHERE_BUILT_IN = frozenset({".avif", ".heic", ".heif"})
UNREAD_PICTURES = frozenset(
    {
        ".avif",
        ".heic",
        ".heif",
        ".jp2",
        ".jxl",
        ".svg",
        ".tga",
        ".psd",
        ".dng",
        ".cr2",
        ".nef",
        ".arw",
        ".exr",
        ".hdr",
    }
)
# 8 bits a sample, or fewer that Pillow scales to 8; of 16 bits a sample in colour Pillow keeps the
# upper 8
_EIGHT_BITS = frozenset(
    {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION = 258, 262, 0x0112
MAX_PIXELS = 89_478_485  # Pillow's own mark of a decompression bomb, a quarter of a GiB of RGB


@functools.cache
def extensions() -> frozenset[str]:
    """Extensions of the files that are read as images; some only where Pillow was built with their
    codec.
    """
    return _EXTENSIONS | (_WHERE_BUILT_IN & Image.registered_extensions().keys())


def read_rgb(path: Path) -> Image.Image:
    """The first picture of a file as RGB of 8 bits. Raises DataError: what is wrong, without the
    path.

    Grey, palette, CMYK are converted; transparency is dropped (the colour under it shows); of 16
    bits a sample the upper 8 count; an EXIF orientation is not applied. All this is how
    torchvision's ImageFolder reads, but for 16-bit grey, which Pillow itself would cut off at 255.
    Samples of any other kind have no agreed white, and are refused.
    """
    # Read whole first: Pillow opens lazily, and an error
    # of the disk would look like one of the image.
    data = _read(path)
    try:
        return _decode(data)
    except Image.DecompressionBombError as error:
        raise DataError(_bomb(str(error))) from error
    except UnidentifiedImageError as error:
        raise DataError(what_it_is(data)) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
        raise DataError(_broken(error)) from error


def check(path: Path) -> bool:
    """Like read_rgb, and the checksums that a decoder passes over. Returns whether it has an EXIF
    orientation.
    """
    read_rgb(path)
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
        # Opened anew: verify leaves an image that cannot be
        # used, and must be the first that is asked of it.
        with Image.open(path) as image:
            image.verify()
        return turned
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise DataError(_broken(error)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's warnings (odd metadata does not matter; a bomb is looked for here). Not for
    several threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_KINDS = {"F": "floating-point samples", "I": "samples of 32 bits or with a sign"}


def _read(path: Path) -> bytes:
    try:
        # not waiting: opening a named pipe would, for whoever writes into it
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError("a named pipe, socket or device: no image can be read from it")
            return file.read()
    except OSError as error:
        raise DataError(unreadable(path, error)) from error


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def unreadable(path: Path, error: OSError) -> str:
    """Why a file cannot be opened, in words."""
    if error.errno == errno.ELOOP:
        return "a symbolic link that leads to itself"
    if error.errno == errno.ENOENT and path.is_symlink():
        return "a symbolic link that leads nowhere"
    if error.errno == errno.EISDIR:
        return "a folder, and no image: name the images in it"
    return f"cannot be read ({os.strerror(error.errno or 0)})"


def _decode(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(
                f"{width} x {height} pixels, more than {MAX_PIXELS:,}: a decompression bomb"
            )
        return image.convert("RGB") if image.mode in _EIGHT_BITS else _deep(image)


def _deep(image: Image.Image) -> Image.Image:
    """Of whole numbers of 16 bits (12 in some TIFFs) the upper 8; anything else is refused."""
    if not image.mode.startswith("I;16") and (
        image.mode != "I" or image.format not in ("PNG", "PPM")
    ):
        raise DataError(
            f"{_KINDS.get(image.mode, 'samples')} (mode {image.mode}): convert it to 8 or 16 bits a"
            " sample"
        )
    tags: dict[int, Any] = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    upper = (np.asarray(image).astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    white_is_zero = tags.get(_PHOTOMETRIC) == 0
    return Image.fromarray(255 - upper if white_is_zero else upper).convert("RGB")


def _bomb(text: str) -> str:
    return f"more than {MAX_PIXELS:,} pixels: a decompression bomb ({text.split(',')[0]})"


def _broken(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "truncated" in text.lower():
        return f"cut short ({text})"
    return f"damaged ({text or type(error).__name__})"


def what_it_is(data: bytes) -> str:
    """A file that is no image, in words."""
    head = data[:512].lstrip().lower()
    if not data:
        return "empty (0 bytes)"
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<!--")):
        return "an HTML page, not an image"
    if head.startswith((b"<?xml", b"<svg")):
        return "an XML or SVG text, not an image"
    return f"not an image (begins with {data[:8]!r})"
