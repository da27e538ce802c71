"""How many channels each layer keeps: what it costs the network to keep fewer, and a budget shared
among the layers.
"""

from __future__ import annotations

from dgc.choice.allocation import Allocation, LayerShare, allocate
from dgc.choice.one_layer import by_layer, keeping

__all__ = ["Allocation", "LayerShare", "allocate", "by_layer", "keeping"]
