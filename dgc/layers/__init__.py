"""The layer and what is done to all of them in a model."""

from __future__ import annotations

from dgc.layers.backend import set_backend, set_method
from dgc.layers.dynamic import DynamicGroupConv2d
from dgc.layers.gate_record import GateRecord
from dgc.layers.model_ops import (
    count_only,
    counted_on_device,
    gate_l1,
    iter_dgc,
    record_gates,
    set_progress,
)
from dgc.layers.pruning_schedule import PruningSchedule

__all__ = [
    "DynamicGroupConv2d",
    "GateRecord",
    "PruningSchedule",
    "count_only",
    "counted_on_device",
    "gate_l1",
    "iter_dgc",
    "record_gates",
    "set_backend",
    "set_method",
    "set_progress",
]
