"""One operation, `dgc_conv2d`, and its ways: masked (the oracle), gathered (plain PyTorch), native
(C++).
"""

from __future__ import annotations

from dgc.layers.algorithms.functional import METHODS, choose, dgc_conv2d

__all__ = ["METHODS", "choose", "dgc_conv2d"]
