"""What a plan sees in image files. Pillow reads them; no torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dgc.errors import DataError, DivergedError, UsageError
from dgc.runtime.fit import fit
from dgc.runtime.image_file import read_rgb
from dgc.runtime.plan import Floats, Plan, Preprocessing


def predict(
    plan: Plan, images: Sequence[Path], top: int = 5
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The best classes of each image that can be read; path and reason of the others. One image at
    a time, as `dgcctl predict` does.
    """
    how, channels = _preparation(plan)
    found, bad = [], []
    for path in images:
        try:
            x = prepare(path, how, channels)
        # One bad image does not keep back the answers about the others.
        except DataError as error:
            bad.append({"path": str(path), "why": str(error).removeprefix(f"{path}: ")})
        else:
            found.append({"path": str(path), "classes": best(plan, plan(x)[0], top)})
    return found, bad


def _preparation(plan: Plan) -> tuple[Preprocessing, int]:
    """How an image file becomes the plan's input, and the channels of that. Raises UsageError where
    none can.
    """
    how = plan.preprocessing
    if how is None:
        raise UsageError(
            f"{plan.name}: does not say how an image is prepared: call it with arrays, or export it"
            " again with preprocessing"
        )
    size = (how.image_size, how.image_size)
    channels = {shape.image[0] for shape in plan.shapes}
    found = next((s.image[0] for s in plan.shapes if s.image[1:] == size), None)
    if not channels <= {1, 3}:
        raise UsageError(
            f"{plan.name}: its network takes images of {max(channels)} channels, and an image file"
            " has 3, or 1 made grey: call it with arrays"
        )
    if found is None:
        sizes = ", ".join(f"{s.image[1]} x {s.image[2]}" for s in plan.shapes)
        raise UsageError(
            f"{plan.name}: an image file becomes {size[0]} x {size[1]} pixels, and it has programs"
            f" for {sizes}: export it again with --size {size[0]} too"
        )
    return how, found


def prepare(path: str | os.PathLike[str], how: Preprocessing, channels: int = 3) -> Floats:
    """The input (1, channels, S, S) of a network of 3 channels, or of 1, for an image file, exactly
    as evaluation makes it.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # how Pillow would rather be called
            image = fit(read_rgb(Path(path)), how.resize, how.image_size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    grey = how.channels == 1 or channels == 1
    return how.normalise(np.asarray(image.convert("L") if grey else image), channels)


def best(plan: Plan, logits: Floats, top: int) -> list[dict[str, Any]]:
    """The `top` classes, most probable first."""
    if logits.ndim != 1:
        raise UsageError(f"{plan.name}: answers with {logits.shape}, which are no classes")
    if not np.isfinite(logits).all():
        raise DivergedError("the network answers NaN or Inf: its weights are untrained or damaged")
    # In double, minus the largest: exp neither overflows nor loses the small ones.
    powers = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = powers / powers.sum()
    # Stable: of equal probabilities the smaller index first, on every machine.
    order = np.argsort(-probabilities, kind="stable")[: max(1, top)]
    names = plan.classes
    return [
        {
            "index": int(i),
            "name": names[i] if i < len(names) else f"class {i}",
            "probability": float(probabilities[i]),
        }
        for i in order
    ]
