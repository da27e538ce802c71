"""Gate maps: which channels each head chose during an evaluation, boiled down to one small JSON
file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dgc.layers import GateRecord, iter_dgc
from dgc.train.ranks import Ranks

_LISTED = 4


def gate_map(
    model: nn.Module, records: Mapping[str, GateRecord], macs: Mapping[str, Any], ranks: Ranks
) -> list[Any]:
    """One entry a DGC layer: per head active share, entropy,
    the most and the least chosen channels; MACs beside.

    `macs` maps a layer's name to its row of dgc.layers.macs (may be empty). Collective: all ranks
    call it.
    """
    # counts of all ranks, then shares: ranks may have seen different numbers of images
    samples = float(
        ranks.sum_(torch.tensor([_samples(records)], dtype=torch.float64, device=ranks.device))
    )
    layers = []
    for name, layer in iter_dgc(model):
        selected_GC = ranks.sum_(records[name].selected)
        share_GC = selected_GC.cpu().double() / max(1.0, samples)
        layers.append(
            {
                "name": name,
                "in_channels": layer.in_channels,
                "n_inactive": layer.n_inactive,
                **macs.get(name, {}),
                "heads": [head_facts(share_C) for share_C in share_GC],
            }
        )
    return layers


def _samples(records: Mapping[str, GateRecord]) -> int:
    return next(iter(records.values())).samples if records else 0


def head_facts(share_C: Tensor) -> dict[str, Any]:
    """What one head did. `share_C`: how often it chose each channel, 0 to 1.

    `entropy` (bits per channel, 0 to 1) tells choice by sample from a fixed choice: 0 where every
    channel is always or never chosen, 1 where each is chosen for half of the samples.
    """
    # stable, so that channels of one share keep their order and files can be compared
    order = torch.argsort(share_C, descending=True, stable=True).tolist()
    shares = share_C.tolist()
    return {
        "active_share": sum(shares) / len(shares),
        "entropy": sum(map(_bits, shares)) / len(shares),
        "most": [[channel, shares[channel]] for channel in order[:_LISTED]],
        "least": [[channel, shares[channel]] for channel in order[::-1][:_LISTED]],
    }


def _bits(p: float) -> float:
    return 0.0 if p <= 0 or p >= 1 else -p * math.log2(p) - (1 - p) * math.log2(1 - p)
