"""Any network's convolutions become dynamic group convolutions,
and come back from a description.
"""

from __future__ import annotations

from dgc.conversion.network import convert
from dgc.conversion.recorded import rebuild, structure
from dgc.conversion.report import ConversionReport

__all__ = ["ConversionReport", "convert", "rebuild", "structure"]
