"""Which way a layer takes in eager mode, from its shape and the number of inactive channels alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from torch import Tensor

from dgc.layers.algorithms import per_head, per_sample, product
from dgc.layers.geometry import Geometry, Grads, Selected

Name = Literal["product", "samples", "heads"]
# channels that the CPU's convolution kernels take at once; more are selected to fill the last ones
LANES = 16


class Plan(NamedTuple):
    """A way and the number of channels that each head reads (those beyond C - n have gate 0)."""

    way: Name
    channels: int


class Way(NamedTuple):
    forward: Callable[[Tensor, Tensor, Selected, Geometry], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor, Selected, Geometry], Grads]


WAYS: Mapping[Name, Way] = MappingProxyType(
    {
        "product": Way(product.forward, product.backward),
        "samples": Way(per_sample.forward, per_sample.backward),
        "heads": Way(per_head.forward, per_head.backward),
    }
)


def plan(
    kernel: int, channels: int, n_inactive: int, pixels: int, padding: int, *, cpu: bool
) -> Plan:
    """The way for a layer with `channels` inputs, `pixels` = H' * W' outputs a channel (measured:
    benchmarks/training).

    1x1: a batched product; gathering pays once half of the channels are off. Wider kernels on the
    CPU: sample by sample while a channel has more pixels than its weights cost to gather; else head
    by head.
    """
    selected = channels - n_inactive
    if kernel == 1 and padding == 0:
        return Plan("product", selected if 2 * selected <= channels else channels)
    if not cpu or pixels < 64:
        return Plan("heads", channels)
    filled = -(-selected // LANES) * LANES
    return Plan("samples", filled if 4 * filled <= 3 * channels else channels)
