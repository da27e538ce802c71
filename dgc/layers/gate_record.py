"""Counting which channels the heads choose, on the device, without a read."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
