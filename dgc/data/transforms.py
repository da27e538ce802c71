"""Geometry of the images: crops, flips, sizes, as torchvision has them, with the random numbers
given from outside.

Legend: B batch, H height, W width, C channels (1 or 3), S side of the result. Pixels are uint8
until the very end.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from dgc.data.rng import Uniforms

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

CROP_FLIP_DRAWS = 3  # top, left, flip
_TRIES = 10
RESIZED_CROP_FLIP_DRAWS = 2 * _TRIES + 3  # (area, ratio) a try, top, left, flip
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
# pixels of a whole image made smaller or larger before its centre is cut out: 64 MiB
_MAX_SCALED = 1 << 24


def crop_flip(x_BHWC: Pixels, draws: Uniforms, padding: int) -> Pixels:
    """Pad with zeros, crop at a random place to the old size, mirror half of them. draws: (B, >=
    3).
    """
    B, H, W, C = x_BHWC.shape
    padded = np.zeros((B, H + 2 * padding, W + 2 * padding, C), np.uint8)
    padded[:, padding : padding + H, padding : padding + W] = x_BHWC
    places = 2 * padding + 1
    rows_BH = (draws[:, 0] * places).astype(np.intp)[:, None] + np.arange(H)
    columns_BW = (draws[:, 1] * places).astype(np.intp)[:, None] + np.arange(W)
    columns_BW = np.where(draws[:, 2:3] < 0.5, columns_BW[:, ::-1], columns_BW)
    cropped: Pixels = padded[
        np.arange(B)[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]
    ]
    return cropped


def random_box(width: int, height: int, draws: Uniforms) -> Box:
    """(left, top, right, bottom) of torchvision's RandomResizedCrop: 8 to 100 % of the area, ratio
    3:4 to 4:3.

    draws: (>= 22,). After ten tries without a fit: the largest centred box of an allowed ratio.
    """
    for area, ratio in draws[: 2 * _TRIES].reshape(_TRIES, 2):
        target = width * height * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
        aspect = math.exp(math.log(_RATIO[0]) + ratio * (math.log(_RATIO[1]) - math.log(_RATIO[0])))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(draws[2 * _TRIES] * (height - h + 1))
            left = int(draws[2 * _TRIES + 1] * (width - w + 1))
            return left, top, left + w, top + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    w, h = width, height
    if width / height < _RATIO[0]:
        h = round(width / _RATIO[0])
    elif width / height > _RATIO[1]:
        w = round(height * _RATIO[1])
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def resized_crop_flip(image: Image.Image, draws: Uniforms, size: int) -> Image.Image:
    """A random box, resized to (size, size), mirrored half of the time. draws: (>= 23,)."""
    image = image.crop(random_box(*image.size, draws)).resize(
        (size, size), Image.Resampling.BILINEAR
    )
    return (
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draws[2 * _TRIES + 2] < 0.5 else image
    )


def fit(image: Image.Image, resize: int | None, size: int) -> Image.Image:
    """Shorter side to `resize` (None: to `size`), then the central (size, size), as in the released
    evaluation.
    """
    target = resize or size
    width, height = _scaled(*image.size, target)
    left, top = (round((side - size) / 2.0) for side in (width, height))
    if width * height > _MAX_SCALED:
        return _fit_long(image, (width, height), (left, top), size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


def _scaled(width: int, height: int, target: int) -> tuple[int, int]:
    """The sides once the shorter is `target`."""
    if min(width, height) == target:
        return width, height
    longer = int(target * max(width, height) / min(width, height))
    return (target, longer) if width <= height else (longer, target)


def _fit_long(
    image: Image.Image, sides: tuple[int, int], corner: tuple[int, int], size: int
) -> Image.Image:
    """The same pixels of a very long image, to rounding: only those that the crop shows are
    computed.

    A strip of 1 x 60,000 pixels, its shorter side made 256, would be an image of 16 GB.
    """
    box = [0.0, 0.0, 0.0, 0.0]
    for axis in (0, 1):
        scale = image.size[axis] / sides[axis]
        box[axis] = corner[axis] * scale
        box[axis + 2] = min((corner[axis] + size) * scale, image.size[axis])
    return image.resize((size, size), Image.Resampling.BILINEAR, (box[0], box[1], box[2], box[3]))
