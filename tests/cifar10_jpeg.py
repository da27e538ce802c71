"""CIFAR-10 as JPEG files, from the archive beside the repository: real images for the image-folder
path.

The archive has no stated licence, so it is no part of the project: where it is absent, the tests
that need it are skipped, with this as the reason.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ARCHIVE = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10_jpeg_10k_2k.npz"


def unpack(folder: Path, train: int = 640, val: int = 130) -> Path:
    """Write the first images as folder/{train,val}/<class>/<n>.jpg. Skips where there is no
    archive.
    """
    if not ARCHIVE.is_file():
        pytest.skip(
            "cifar10_jpeg_10k_2k.npz is not there: it may not be shipped, so this needs a machine"
            " that has it"
        )
    with np.load(ARCHIVE, allow_pickle=False) as arrays:
        classes = [str(name) for name in arrays["classes"]]
        for split, target, count in (("train", "train", train), ("test", "val", val)):
            jpeg, offsets, labels = (arrays[f"{split}_{part}"] for part in ("jpeg", "off", "y"))
            for index, label in enumerate(labels[:count]):
                path = folder / target / classes[label] / f"{index:05d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg[offsets[index] : offsets[index + 1]].tobytes())
    return folder
