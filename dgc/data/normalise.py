"""From pixels to the network's input: divided by 255, minus mean, divided by std, in this order and
precision.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Normalise:
    """(B, S, S, C) uint8 on the CPU -> (B, 3, S, S)
    of `dtype` on `device`; a single channel is repeated.

    On the CPU each channel has a table of its 256 values: one pass, one thread, and the very
    numbers that the arithmetic gives. A GPU gets the bytes (a quarter of the floats' traffic) and
    computes.
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.dtype, self.device = dtype, device
        self.mean, self.std = (
            torch.tensor(value, dtype=dtype, device=device)[:, None, None] for value in (mean, std)
        )
        # a tensor, since CUDA divides by a Python number by multiplying with its reciprocal
        self.full = torch.tensor(255, dtype=dtype, device=device)
        # every value that a byte can have, through the arithmetic
        # of `_scale`: the table is equal to it bit for bit
        levels = torch.arange(256, device=device).to(dtype).expand(3, 1, 256)
        self.tables = self._scale(levels)[:, 0].cpu().numpy()

    def __call__(self, x_BHWC: Tensor) -> Tensor:
        if self.device.type == "cpu":
            return self._look_up(x_BHWC)
        x_BCHW = x_BHWC.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return self._scale(
            x_BCHW.expand(-1, 3, -1, -1).to(self.dtype, memory_format=torch.contiguous_format)
        )

    def _scale(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.div(self.full).sub_(self.mean).div_(self.std)

    def _look_up(self, x_BHWC: Tensor) -> Tensor:
        pixels = x_BHWC.numpy()
        B, H, W, C = pixels.shape
        out = np.empty((B, 3, H, W), self.tables.dtype)
        for channel, table in enumerate(self.tables):
            # a grey image with equal numbers for all channels: looked up once, copied twice
            if C == 1 and channel and np.array_equal(table, self.tables[channel - 1]):
                out[:, channel] = out[:, channel - 1]
            else:
                out[:, channel] = table[pixels[..., min(channel, C - 1)]]
        return torch.from_numpy(out)
