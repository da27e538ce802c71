"""Plan files without PyTorch: NumPy and the compiled kernels.

    plan = dgc.runtime.load("model.dgc", threads=2)
    logits = plan(images)  # float32 (B, C, H, W) -> (B, classes)

Files are written by `dgc.save_plan` and `dgcctl export`. In C: `python -m dgc.runtime where`.
"""

from __future__ import annotations

from dgc.runtime.native import examples, header, library
from dgc.runtime.plan import Plan, Preprocessing, Shape, load

__all__ = ["Plan", "Preprocessing", "Shape", "examples", "header", "library", "load"]
