"""The run directory: what is written, and how it is read. `start` makes one from any script; it is
imported when it is first asked for (PEP 562), so that reading a run stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgc.run.script import ScriptRun, start

__all__ = ["ScriptRun", "start"]


def __dir__() -> list[str]:
    # what is imported when it is asked for would be hidden from tab keys
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'dgc.run' has no attribute {name!r}")
    return getattr(importlib.import_module("dgc.run.script"), name)
