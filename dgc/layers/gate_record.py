"""Counting which channels the heads choose, on the device, without a read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from dgc.layers.dynamic import DynamicGroupConv2d


@dataclass
class GateRecord:
    """`chosen` (G, C): in how many samples head g chose channel c. `samples`: how many were seen.

    `real`: only so many of the first samples of a batch count, the others pad it (None: all do).
    """

    chosen: Tensor
    samples: int = 0
    real: int | None = None

    def add(self, kept_BGC: Tensor) -> None:
        kept_BGC = kept_BGC[: self.real]
        self.chosen.add_((kept_BGC.detach() > 0).sum(0))
        self.samples += kept_BGC.shape[0]

    def share(self) -> Tensor:
        """How often each channel was chosen, 0 to 1: (G, C), float64 on the CPU."""
        return self.chosen.cpu().double() / max(1, self.samples)


@contextmanager
def record_gates(model: nn.Module) -> Iterator[dict[str, GateRecord]]:
    """While open, every DGC layer of `model` counts its choices; yields {layer name: GateRecord}."""
    from dgc.layers.model_ops import iter_dgc

    layers = dict(iter_dgc(model))
    records = {name: _start(layer) for name, layer in layers.items()}
    try:
        yield records
    finally:
        for layer in layers.values():
            layer.gate_record = None


def count_only(model: nn.Module, real: int | None) -> None:
    """Let records that are open count the first `real` samples of the batches to come (None: all of
    them).
    """
    from dgc.layers.model_ops import iter_dgc

    for _, layer in iter_dgc(model):
        if layer.gate_record is not None:
            layer.gate_record.real = real


def _start(layer: DynamicGroupConv2d) -> GateRecord:
    shape, device = layer.fc2_bias.shape, layer.fc2_bias.device
    layer.gate_record = GateRecord(torch.zeros(shape, dtype=torch.int64, device=device))
    return layer.gate_record
