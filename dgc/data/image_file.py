"""Read one image file, or say in a few words what is wrong with it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dgc.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
MAX_PIXELS = 89_478_485  # Pillow's own mark of a decompression bomb, a quarter of a GiB of RGB


def read_rgb(path: Path) -> Image.Image:
    """The image as RGB (grey, palette, CMYK, ... are converted). Raises DataError: what is wrong, without the path."""
    data = _read(path)
    try:
        return _decode(data)
    except Image.DecompressionBombError as error:
        raise DataError(_bomb(str(error))) from error
    except UnidentifiedImageError as error:
        raise DataError(what_it_is(data)) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
        raise DataError(_broken(error)) from error


def check(path: Path) -> None:
    """Like read_rgb, and the checksums that a decoder passes over. Raises DataError."""
    read_rgb(path)
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise DataError(_broken(error)) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's warnings (odd metadata does not matter; a bomb is looked for here). Not for several threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DataError("a symbolic link that leads to itself") from error
        if error.errno == errno.ENOENT and path.is_symlink():
            raise DataError("a symbolic link that leads nowhere") from error
        raise DataError(f"cannot be read ({os.strerror(error.errno or 0)})") from error


def _decode(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}: a decompression bomb")
        return image.convert("RGB")


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
