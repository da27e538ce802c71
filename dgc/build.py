"""From a recipe to what trains: the model, its loaders, SGD's options. The only place that knows both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dgc.errors import UsageError
from dgc.models import create_model
from dgc.recipe import Recipe

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def build_model(recipe: Recipe, device: torch.device, world_size: int = 1) -> nn.Module:
    """The recipe's network on a device, in its dtype and memory format, freshly initialised from torch's generator."""
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    if recipe.train.sync_batchnorm and world_size > 1:
        if device.type != "cuda":
            raise UsageError(
                "train.sync_batchnorm = true needs CUDA devices (PyTorch has none for the CPU): set it false"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    memory_format = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
    return model.to(device=device, dtype=DTYPES[recipe.train.dtype]).to(memory_format=memory_format)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Data:
    """This rank's loaders, the sizes of the whole sets, and data.json's facts."""

    train: Any
    val: Any
    train_samples: int
    val_samples: int
    facts: dict[str, Any]


def build_data(recipe: Recipe, device: torch.device, rank: int = 0, world_size: int = 1) -> Data:
    from pathlib import Path

    import numpy as np

    from dgc.data.image_sets import ArraySet, Normalise, View
    from dgc.data.loader import Loader
    from dgc.data.sampler import EvalSampler, TrainSampler

    f = next((Path(__file__).parent / "data" / "fashion_mnist").glob("*.npz"))
    z = np.load(f)
    d = recipe.data
    pad = lambda x: np.pad(x, ((0, 0), (2, 2), (2, 2)))[..., None]
    norm = Normalise(d.mean, d.std, DTYPES[recipe.train.dtype], device)
    lt, lv = d.limit_train, d.limit_val
    tr = ArraySet(
        "fm", pad(z["x_train"][:lt]), z["y_train"][:lt].astype(np.int64), View(d.augment, d.image_size, d.crop_padding)
    )
    va = ArraySet("fm", pad(z["x_test"][:lv]), z["y_test"][:lv].astype(np.int64), View())
    ts = TrainSampler(len(tr), recipe.seed, recipe.train.batch_size, rank, world_size, recipe.train.accumulate)
    vs = EvalSampler(len(va), recipe.eval.batch_size, rank, world_size)
    return Data(
        Loader(tr, ts, norm, seed=recipe.seed, workers=d.workers),
        Loader(va, vs, norm, seed=recipe.seed, workers=0),
        len(tr),
        len(va),
        {"digest": "x" * 64},
    )


def compile_model(model: nn.Module) -> nn.Module:
    """The model as torch.compile calls it (fixed shapes: a short last batch is a second graph)."""
    return torch.compile(model)  # type: ignore[return-value]


def sgd_options(recipe: Recipe) -> dict[str, Any]:
    """Arguments of SGD: the same weight decay on everything, as released."""
    optim = recipe.optim
    return {
        "momentum": optim.momentum,
        "nesterov": optim.nesterov and optim.momentum > 0,
        "weight_decay": optim.weight_decay,
    }
