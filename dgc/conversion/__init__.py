"""Any network's convolutions become dynamic group convolutions,
and come back from a description.
"""

from __future__ import annotations

from dgc.conversion.network import convert
from dgc.conversion.recorded import rebuild, structure
from dgc.conversion.report import ConversionReport
from dgc.conversion.shares import set_gate_factors

__all__ = ["ConversionReport", "convert", "rebuild", "set_gate_factors", "structure"]
