"""Dynamic Group Convolution. `import dgc` loads no torch until a name that needs it is touched (PEP
562).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgc.choice import allocate
    from dgc.conversion import convert, rebuild, set_gate_factors, structure
    from dgc.hub.load_weights import create_model
    from dgc.infer import (
        compare_precisions,
        compile_for_inference,
        explain_inference,
        save_plan,
    )
    from dgc.layers import (
        DynamicGroupConv2d,
        PruningSchedule,
        gate_l1,
        iter_dgc,
        record_gates,
        set_backend,
        set_method,
        set_progress,
    )
    from dgc.models import list_models, load_released

__version__ = "0.1.0"

_HOME = {
    "allocate": "dgc.choice",
    "DynamicGroupConv2d": "dgc.layers",
    "PruningSchedule": "dgc.layers",
    "gate_l1": "dgc.layers",
    "iter_dgc": "dgc.layers",
    "record_gates": "dgc.layers",
    "set_backend": "dgc.layers",
    "set_method": "dgc.layers",
    "set_progress": "dgc.layers",
    "convert": "dgc.conversion",
    "rebuild": "dgc.conversion",
    "set_gate_factors": "dgc.conversion",
    "structure": "dgc.conversion",
    "create_model": "dgc.hub.load_weights",
    "list_models": "dgc.models",
    "load_released": "dgc.models",
    "compare_precisions": "dgc.infer",
    "compile_for_inference": "dgc.infer",
    "explain_inference": "dgc.infer",
    "save_plan": "dgc.infer",
}

_ROOMS = ("hub", "run", "runtime")  # what users call as dgc.ROOM.NAME after `import dgc` alone

__all__ = [
    "DynamicGroupConv2d",
    "PruningSchedule",
    "__version__",
    "allocate",
    "compare_precisions",
    "compile_for_inference",
    "convert",
    "create_model",
    "explain_inference",
    "gate_l1",
    "iter_dgc",
    "list_models",
    "load_released",
    "rebuild",
    "record_gates",
    "save_plan",
    "set_backend",
    "set_gate_factors",
    "set_method",
    "set_progress",
    "structure",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"dgc.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'dgc' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
