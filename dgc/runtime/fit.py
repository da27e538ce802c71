"""The part of an image that a network sees in evaluation, with or without PyTorch."""

from __future__ import annotations

from PIL import Image

# pixels of a whole image made smaller or larger before its centre is cut out: 64 MiB
_MAX_SCALED = 1 << 24


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
    # Cut off and not rounded, as torchvision's Resize does: one pixel more would shift the crop.
    longer = int(target * max(width, height) / min(width, height))
    return (target, longer) if width <= height else (longer, target)


def _fit_long(
    image: Image.Image, sides: tuple[int, int], corner: tuple[int, int], size: int
) -> Image.Image:
    """The same pixels of a very long image, to rounding: only those that the crop shows are
    computed.

    A strip of 1 x 60,000 pixels, its shorter side made 256, would be an image of 16 GB.
    """
    # Pillow takes a box in pixels of the original, fractions
    # included, and reads only what it needs of it.
    box = [0.0, 0.0, 0.0, 0.0]
    for axis in (0, 1):
        scale = image.size[axis] / sides[axis]
        box[axis] = corner[axis] * scale
        box[axis + 2] = min((corner[axis] + size) * scale, image.size[axis])
    return image.resize((size, size), Image.Resampling.BILINEAR, (box[0], box[1], box[2], box[3]))
