"""Full-size files in the released format, made here: random weights, calibrated statistics, any
container.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dgc
from dgc.hub.registry import MIB, ReleasedCheckpoint, find_entry
from dgc.models import create_model
from dgc.models.released import to_released


def random_network(
    name: str, image_size: int, seed: int = 0, images: torch.Tensor | None = None
) -> nn.Module:
    """Network `name` at the end of its pruning schedule; BatchNorm has the statistics of `images`
    (or of noise).
    """
    torch.manual_seed(seed)
    model = create_model(name)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
    dgc.set_progress(model, 1.0)
    with torch.no_grad():
        for _, layer in dgc.iter_dgc(model):
            # gates near 1: a product per layer would run away on an untrained network
            layer.fc2.mul_(0.01)
        model.train()(torch.randn(4, 3, image_size, image_size) if images is None else images)
    for norm in norms:
        norm.momentum = 0.1
        # a channel that is dead on these images would run away on others
        norm.running_var.clamp_(min=0.1)
    return model.eval()


def released_content(
    model: nn.Module, *, optimizer: bool = False, best_as_tensor: bool = False
) -> dict[str, Any]:
    """What the authors' script hands to torch.save: `module.` keys with torch's `_metadata`, epoch,
    best_prec1.
    """
    state = OrderedDict(
        (f"module.{key}", value.clone()) for key, value in to_released(model.state_dict()).items()
    )
    metadata = OrderedDict((key.rpartition(".")[0], {"version": 1}) for key in state)
    metadata[""] = metadata["module"] = {"version": 1}
    state._metadata = metadata  # type: ignore[attr-defined]  (torch's own state dicts have it)
    content: dict[str, Any] = {"epoch": 299, "arch": "released", "state_dict": state}
    content["best_prec1"] = torch.tensor(95.25) if best_as_tensor else 95.25
    if optimizer:
        buffers = {
            index: {"momentum_buffer": torch.zeros_like(p)}
            for index, p in enumerate(model.parameters())
        }
        groups = [
            {
                "lr": 0.0,
                "momentum": 0.9,
                "nesterov": True,
                "weight_decay": 1e-4,
                "params": list(buffers),
            }
        ]
        content["optimizer"] = {"state": buffers, "param_groups": groups}
    return content


def write(path: Path, content: dict[str, Any], *, zipped: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def registry_for(path: Path, name: str, size: int) -> Path:
    """A copy of the registry in which `name` has another size (a file with an optimizer is three
    times as large).
    """
    content = json.loads(files("dgc.hub").joinpath("registry.json").read_text())
    content["checkpoints"][name]["size_mib"] = size / MIB
    path.write_text(json.dumps(content))
    return path


def oracle(model: nn.Module) -> nn.Module:
    """The same network, every layer computed the slow way."""
    for _, layer in dgc.iter_dgc(model):
        layer.backend = "masked"
    return model


def image_batch(entry: ReleasedCheckpoint | str, count: int = 2) -> torch.Tensor:
    size = (find_entry(entry) if isinstance(entry, str) else entry).preprocessing.image_size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(7))
