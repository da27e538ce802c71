"""Dynamic Group Convolution. `import dgc` loads no torch until a name that needs it is touched (PEP 562)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> the module that holds it
_EXPORTS = {
    "DynamicGroupConv2d": "dgc.layers",
    "gate_l1": "dgc.layers",
    "set_progress": "dgc.layers",
    "create_model": "dgc.models",
    "list_models": "dgc.models",
    "load_released": "dgc.models",
    "compile_for_inference": "dgc.engine",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'dgc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
