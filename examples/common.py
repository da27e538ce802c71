"""What the four examples share: images, a network with dynamic layers, the command line, a file
that a training goes on from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

import dgc
from dgc.data import open_images

BATCH = 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True, help="for checkpoints")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=1024)
    return parser.parse_args()


def network() -> nn.Module:
    """Three dynamic layers; the same weights each time."""
    torch.manual_seed(0)
    return dgc.create_model("dydensenet", stages=(1, 1, 1), growth=(8, 8, 8), num_classes=10)


def dataset(count: int) -> TensorDataset:
    """The first images of Fashion-MNIST, which come with the package, as float (3, 32, 32)."""
    with torch.no_grad():
        images = open_images(name="fashion_mnist", limit_train=count).train
        pixels = torch.from_numpy(images.pixels(0, 0, torch.arange(count).numpy()))
        floats = (pixels.permute(0, 3, 1, 2).float() / 255 - 0.286) / 0.353
    return TensorDataset(floats.repeat(1, 3, 1, 1), torch.from_numpy(images.labels))


class Shuffled(Sampler[int]):
    """An order that the number of the epoch decides, so that a resumed training goes on exactly."""

    def __init__(self, data: TensorDataset) -> None:
        self.count, self.epoch = len(data), 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = torch.Generator().manual_seed(self.epoch)
        yield from torch.randperm(self.count, generator=order).tolist()

    def __len__(self) -> int:
        return self.count


def batches(data: TensorDataset, epoch: int = 0) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    order = Shuffled(data)
    order.set_epoch(epoch)
    return DataLoader(data, BATCH, sampler=order, drop_last=True)


def resume(file: Path, parts: Mapping[str, Any]) -> int:
    """Put back what `save` wrote, if it is there; the epoch to go on with."""
    if not file.exists():
        return 0
    saved = torch.load(file, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return int(saved["epoch"])


def save(file: Path, parts: Mapping[str, Any], epoch: int) -> None:
    """All parts' states: whole, or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "epoch": epoch}, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


def digest(model: nn.Module) -> str:
    """A figure that all weights go into: two trainings that agree in it are the same."""
    return f"{sum(p.double().abs().sum().item() for p in model.parameters()):.12f}"
