"""The networks that are measured, with weights as training leaves them as far as speed is
concerned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dgc.layers import set_backend, set_progress
from dgc.layers.backend import Backend
from dgc.models import create_model


@dataclass(frozen=True)
class Network:
    preset: str
    image: int
    mac_ratio: float  # dense / DGC by the authors' counter
    bar: float  # how much faster than dense PyTorch it has to be


NETWORKS = {
    "condensenet": Network("imagenet_dydensenet_h4", 224, 1280.6 / 549.3, 2.3),
    "resnet18": Network("imagenet_dyresnet18_h4", 224, 1818.2 / 890.4, 2.0),
    "densenet86": Network("cifar10_dydensenet86_h4", 32, 177.3 / 71.0, 2.5),
}


def build(name: str, form: str) -> nn.Module:
    """A network in evaluation mode:
    BatchNorm statistics from a few passes over noise, final pruning.
    """
    network = NETWORKS[name]
    # BatchNorm needs statistics of some kind, no good ones: smaller images are enough.
    side = min(network.image, 112)
    torch.manual_seed(0)
    model = create_model(network.preset, form=form).train()
    set_progress(model, 0.999)
    with torch.no_grad():
        for _ in range(8):
            model(torch.randn(8, 3, side, side))
    return model.eval()


def with_backend(model: nn.Module, backend: Backend) -> nn.Module:
    """The same model with every layer computed with one backend."""
    set_backend(model, backend)
    return model
