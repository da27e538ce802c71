"""Autocast taken into our own hands: functions with a backward of their own run in one
precision.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def device_type(x: Tensor) -> str:
    """Shapes alone (meta tensors) know no autocast."""
    return "cpu" if x.device.type == "meta" else x.device.type


def compute_dtype(x: Tensor) -> torch.dtype:
    """What a convolution of x would compute in: autocast's dtype where it is on."""
    kind = device_type(x)
    return (
        torch.get_autocast_dtype(kind)
        if torch.is_autocast_enabled(kind) and x.dtype != torch.float64
        else x.dtype
    )


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    # autocast inside such a function would be applied in forward and be gone in backward
    kind = device_type(x)
    if not torch.is_autocast_enabled(kind):
        return nullcontext()  # an exported program would hold a block of its own for it
    return torch.autocast(kind, enabled=False)
