"""The layer and what is done to all of them in a model."""

from __future__ import annotations

from dgc.layers.collect import gate_l1, iter_dgc, set_progress
from dgc.layers.dynamic import DynamicGroupConv2d
from dgc.layers.method import set_method
from dgc.layers.record import GateRecord, count_only, record_gates

__all__ = [
    "DynamicGroupConv2d",
    "GateRecord",
    "count_only",
    "gate_l1",
    "iter_dgc",
    "record_gates",
    "set_method",
    "set_progress",
]
