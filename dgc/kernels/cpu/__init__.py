"""C++ kernels for the CPU: found at run time, not needed for anything but speed."""

from __future__ import annotations

from dgc.kernels.cpu.library import available, describe

__all__ = ["available", "describe"]
