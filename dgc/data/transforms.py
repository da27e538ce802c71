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
from dgc.runtime.fit import fit

Pixels = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

__all__ = ["Box", "Pixels", "crop_flip", "fit", "random_box", "resized_crop_flip"]

CROP_FLIP_DRAWS = 3  # top, left, flip
_TRIES = 10
RESIZED_CROP_FLIP_DRAWS = 2 * _TRIES + 3  # (area, ratio) a try, top, left, flip
_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)


def crop_flip(x_BHWC: Pixels, draws: Uniforms, padding: int) -> Pixels:
    """Pad with zeros, crop at a random place to the old size,
    mirror half of them. draws: (B, >= 3).
    """
    B, H, W, C = x_BHWC.shape
    padded = np.zeros((B, H + 2 * padding, W + 2 * padding, C), np.uint8)
    padded[:, padding : padding + H, padding : padding + W] = x_BHWC
    places = 2 * padding + 1
    rows_BH = (draws[:, 0] * places).astype(np.intp)[:, None] + np.arange(H)
    columns_BW = (draws[:, 1] * places).astype(np.intp)[:, None] + np.arange(W)
    # mirrored by its columns' numbers: one gather does crop and flip
    columns_BW = np.where(draws[:, 2:3] < 0.5, columns_BW[:, ::-1], columns_BW)
    cropped: Pixels = padded[
        np.arange(B)[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]
    ]
    return cropped


def random_box(width: int, height: int, draws: Uniforms) -> Box:
    """(left, top, right, bottom) of torchvision's RandomResizedCrop:
    8 to 100 % of the area, ratio 3:4 to 4:3.

    draws: (>= 22,). After ten tries without a fit: the largest centred box of an allowed ratio.
    """
    # the first box that fits, of tries with numbers of
    # their own: as torchvision, but without a state
    for area, ratio in draws[: 2 * _TRIES].reshape(_TRIES, 2):
        target = width * height * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
        aspect = math.exp(math.log(_RATIO[0]) + ratio * (math.log(_RATIO[1]) - math.log(_RATIO[0])))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            # the same numbers whichever try it was: the
            # place does not depend on how many were needed
            top = int(draws[2 * _TRIES] * (height - h + 1))
            left = int(draws[2 * _TRIES + 1] * (width - w + 1))
            return left, top, left + w, top + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> Box:
    w, h = width, height
    # too narrow or too wide for any allowed ratio: as much of it as one allows, from the middle
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
