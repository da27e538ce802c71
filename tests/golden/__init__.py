"""Reading the reference numbers (see README.md beside this file)."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent
CASES = range(7)


def layer_case(number: int) -> dict[str, Any]:
    """Arrays of one layer as tensors, and `meta`."""
    with np.load(HERE / f"layer_case_{number}.npz") as content:
        case: dict[str, Any] = {
            key: torch.from_numpy(content[key]) for key in content.files if key != "meta"
        }
        case["meta"] = json.loads(str(content["meta"]))
    return case


def released_keys() -> dict[str, Any]:
    """{name: {flops_by_authors_counter, params, state_dict: {key: [shape, dtype]}}}."""
    return json.loads(gzip.decompress((HERE / "released_keys.json.gz").read_bytes()))  # type: ignore[no-any-return]


def trace() -> dict[str, Any]:
    with np.load(HERE / "tiny_dydensenet_trace.npz") as content:
        return {key: content[key] for key in content.files}


def tiny_logits() -> Tensor:
    with np.load(HERE / "tiny_dydensenet_eval.npz") as content:
        return torch.from_numpy(content["logits"])


def fashion_images(count: int) -> tuple[Tensor, Tensor]:
    """The first training images as the reference run took them: zeros around, three channels,
    float64; labels.
    """
    path = files("dgc.data").joinpath("fashion_mnist/fashion_mnist_5k_1k.npz")
    with path.open("rb") as file, np.load(file) as content:
        images, labels = content["x_train"][:count], content["y_train"][:count]
    padded = np.pad(images.astype(np.float32) / np.float32(255), ((0, 0), (2, 2), (2, 2)))
    x = (torch.from_numpy(padded) - 0.2860) / 0.3530  # in float32, as the reference run made them
    return x[:, None].repeat(1, 3, 1, 1).double(), torch.from_numpy(labels.astype(np.int64))
