"""The algorithms of the dynamic group convolution, side by side. Which one computes a call is
decided in dgc.layers.dispatch.

masked (dgc.layers.reference, the oracle) and gathered are PyTorch's own operations under
`dgc_conv2d`. native (C++) is a whole layer. Those in ALGORITHMS are a forward and a backward
between which only the raw input is kept; dgc.layers.fused makes a layer of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from dgc.layers.algorithms import all_heads, own_weights, per_head, per_sample, product
from dgc.layers.algorithms.functional import dgc_conv2d
from dgc.layers.geometry import Geometry, Grads, Selected

__all__ = ["ALGORITHMS", "ByHand", "dgc_conv2d"]


class ByHand(NamedTuple):
    """A convolution whose derivative is written by hand.

    forward: (activated input (B, C, H, W), weight (O, C, k, k), selected channels, geometry) ->
    (B, O, H', W'), shuffled. backward: (gradient of that, and the same four) -> Grads.
    """

    forward: Callable[[Tensor, Tensor, Selected, Geometry], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Selected, Geometry], Grads]


ALGORITHMS: Mapping[str, ByHand] = MappingProxyType(
    {
        "product": ByHand(product.forward, product.backward),
        "per_sample": ByHand(per_sample.forward, per_sample.backward),
        "per_head": ByHand(per_head.forward, per_head.backward),
        "own_weights": ByHand(own_weights.forward, own_weights.backward),
        "all_heads": ByHand(all_heads.forward, all_heads.backward),
    }
)
