"""One operation, `dgc_conv2d`, and its algorithms: masked (the oracle) and gathered, both in plain
PyTorch. A layer's backend (dgc.layers.backend) decides whether it or the C++ kernels compute.
"""

from __future__ import annotations

from dgc.layers.algorithms.functional import METHODS, choose, dgc_conv2d

__all__ = ["METHODS", "choose", "dgc_conv2d"]
