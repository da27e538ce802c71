"""Kernels for GPUs, in Triton. Nothing is loaded before it is asked for: Triton may be absent."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

# asked once, as Triton does: a traced graph can read a constant, and neither environment nor files
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INSTALLED = find_spec("triton") is not None


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on the CPU: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def installed() -> bool:
    """Whether Triton is there; it comes with PyTorch for CUDA."""
    return find_spec("triton") is not None
