"""The experiment manager. In Python: `dgcctl.runs("state=done").frame()`; all else is commands."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgcctl.core.runs.frames import Runs, runs

_HOME = {"Runs": "dgcctl.core.runs.frames", "runs": "dgcctl.core.runs.frames"}

__all__ = ["Runs", "runs"]


def __getattr__(name: str) -> Any:
    """A name of `__all__`, loaded when it is touched: commands need none of it."""
    if name not in _HOME:
        raise AttributeError(f"module 'dgcctl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
