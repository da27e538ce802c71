"""Counting which channels the heads choose, on the device, without a read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class GateRecord:
    """`selected` (G, C): in how many samples head g selected channel c.
    `samples`: how many were seen.

    `real`: only so many of the first samples of a batch count, the others pad it (None: all do).
    """

    selected: Tensor
    samples: int = 0
    real: int | None = None

    def add(self, selected_BGC: Tensor) -> None:
        selected_BGC = selected_BGC[: self.real]
        self.selected.add_((selected_BGC.detach() > 0).sum(0))
        self.samples += selected_BGC.shape[0]

    def share(self) -> Tensor:
        """How often each channel was selected, 0 to 1: (G, C), float64 on the CPU."""
        return self.selected.cpu().double() / max(1, self.samples)
