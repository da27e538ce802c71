"""RandAugment (Cubuk et al. 2020) with torchvision's operations and ranges, its random numbers
given from outside, and random erasing (Zhong et al. 2020).

Legend: B batch, H height, W width, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from PIL import Image
from torch import Tensor

from dgc.data.rng import Uniforms
from dgc.data.transforms import Pixels

_LEVELS = 30  # magnitudes run from 0 to this
# (area, ratio, top, left) a try, and whether at all
_TRIES = 10
ERASING_DRAWS = 1 + 4 * _TRIES
_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = (0.3, 3.3)

Operation = Callable[[Any, Image.Image, float], Any]


def draws_needed(operations: int) -> int:
    """Random numbers an image: which operation, and which sign, each time."""
    return 2 * operations


def rand_augment(x_BHWC: Pixels, draws: Uniforms, operations: int, magnitude: int) -> Pixels:
    """Each image through `operations` random operations. draws: (B, draws_needed)."""
    # here, because importing it takes a second, and only recipes that ask for it should wait
    from torchvision.transforms import functional

    out = np.empty_like(x_BHWC)
    grey = x_BHWC.shape[3] == 1
    for place, pixels in enumerate(x_BHWC):
        image = Image.fromarray(pixels[..., 0] if grey else pixels)
        # two numbers a time, used or not: what follows does not depend on what was chosen
        for which, sign in draws[place].reshape(operations, 2):
            chosen = int(which * len(OPERATIONS))
            image = _apply(functional, image, chosen, magnitude / _LEVELS, sign < 0.5)
        out[place] = np.asarray(image)[..., None] if grey else np.asarray(image)
    return out


def _apply(
    functional: Any, image: Image.Image, which: int, share: float, negative: bool
) -> Image.Image:
    _, signed, largest, operation = OPERATIONS[which]
    level = share * largest(image)
    return cast(
        "Image.Image", operation(functional, image, -level if signed and negative else level)
    )


def _sheared(functional: Any, image: Image.Image, x: float, y: float) -> Any:
    shear = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    return functional.affine(
        image, angle=0.0, translate=[0, 0], scale=1.0, shear=shear, center=[0, 0]
    )


def _moved(functional: Any, image: Image.Image, x: float, y: float) -> Any:
    moved = [int(x), int(y)]
    return functional.affine(image, angle=0.0, translate=moved, scale=1.0, shear=[0.0, 0.0])


def _adjusted(what: str) -> Operation:
    return lambda f, image, level: getattr(f, f"adjust_{what}")(image, 1.0 + level)


def _constant(value: float) -> Callable[[Image.Image], float]:
    return lambda _: value


def _of_width(image: Image.Image) -> float:
    return 150.0 / 331.0 * image.width


def _of_height(image: Image.Image) -> float:
    return 150.0 / 331.0 * image.height


# name, whether the sign is tossed, the largest level (of an image), what is done: torchvision's
# table, in its order
OPERATIONS: tuple[tuple[str, bool, Callable[[Image.Image], float], Operation], ...] = (
    ("Identity", False, _constant(0.0), lambda _, image, level: image),
    ("ShearX", True, _constant(0.3), lambda f, image, level: _sheared(f, image, level, 0.0)),
    ("ShearY", True, _constant(0.3), lambda f, image, level: _sheared(f, image, 0.0, level)),
    ("TranslateX", True, _of_width, lambda f, image, level: _moved(f, image, level, 0.0)),
    ("TranslateY", True, _of_height, lambda f, image, level: _moved(f, image, 0.0, level)),
    ("Rotate", True, _constant(30.0), lambda f, image, level: f.rotate(image, level)),
    ("Brightness", True, _constant(0.9), _adjusted("brightness")),
    ("Color", True, _constant(0.9), _adjusted("saturation")),
    ("Contrast", True, _constant(0.9), _adjusted("contrast")),
    ("Sharpness", True, _constant(0.9), _adjusted("sharpness")),
    ("Posterize", False, _constant(4.0), lambda f, i, level: f.posterize(i, 8 - round(level))),
    ("Solarize", False, _constant(255.0), lambda f, i, level: f.solarize(i, 255.0 - level)),
    ("AutoContrast", False, _constant(0.0), lambda f, image, level: f.autocontrast(image)),
    ("Equalize", False, _constant(0.0), lambda f, image, level: f.equalize(image)),
)


# --- random erasing -------------------------------------------------------------------------------


def erase(images_BCHW: Tensor, draws: Uniforms, probability: float) -> Tensor:
    """In place: a random box of some normalised images becomes 0, which is the mean colour.
    draws: (B, ERASING_DRAWS).
    """
    height, width = images_BCHW.shape[2:]
    for image_CHW, numbers in zip(images_BCHW, draws, strict=True):
        # the first number decides whether, so a higher probability erases the same images and more
        if numbers[0] < probability and (box := _box(height, width, numbers[1:])):
            top, left, h, w = box
            image_CHW[:, top : top + h, left : left + w] = 0
    return images_BCHW


def _box(height: int, width: int, draws: Uniforms) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) of torchvision's RandomErasing;
    None after ten tries without a fit.
    """
    low, high = map(math.log, _ERASED_RATIO)
    for area, ratio, down, right in draws.reshape(_TRIES, 4):
        # torchvision draws the logarithm evenly: 1:3 is as likely as 3:1
        first, last = _ERASED_AREA
        target = height * width * (first + area * (last - first))
        aspect = math.exp(low + ratio * (high - low))
        h, w = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if h < height and w < width:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    return None
