"""What becomes of a network when one of its layers keeps another share of its channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from dgc.errors import ArgumentError
from dgc.layers import DynamicGroupConv2d, iter_dgc
from dgc.schedule import inactive_channels

SHARES = (0.125, 0.25, 0.5, 0.75)
Result = TypeVar("Result")


def inactive(layer: DynamicGroupConv2d, share: float) -> int:
    """How many channels of a layer are off where this share of them is kept, as at the end of a
    training. Raises ArgumentError where that would be all of them.
    """
    off = inactive_channels(1.0, layer.in_channels, share)
    if off >= layer.in_channels:
        raise ArgumentError(
            f"a share of {share} keeps no channel of a layer that has {layer.in_channels}: take"
            " larger shares"
        )
    return off


def share_now(layer: DynamicGroupConv2d) -> float:
    """The share of its channels that a layer keeps at present."""
    return 1 - layer.n_inactive / layer.in_channels


@contextmanager
def keeping(layer: DynamicGroupConv2d, share: float) -> Iterator[None]:
    """Within the block the layer keeps this share of its channels."""
    # before any other share is set: an error in between puts this one back
    before = (layer.n_inactive, layer.n_traced)
    layer.set_inactive(inactive(layer, share))
    try:
        yield
    finally:
        layer.set_inactive(*before)


def by_layer(
    model: nn.Module, shares: Sequence[float], measure: Callable[[], Result]
) -> Iterator[tuple[str, float, Result]]:
    """(layer, share, what `measure` returns) with one layer at a time keeping that share of its
    channels, all others as they are.
    """
    layers = list(iter_dgc(model))
    if not layers:
        raise ArgumentError(
            f"{type(model).__name__} has no dynamic layers: there is no share of channels to choose"
        )
    for name, layer in layers:
        for share in check_shares(shares):
            with keeping(layer, share):
                yield name, share, measure()


def check_shares(shares: Sequence[float]) -> list[float]:
    """In rising order, each once. Raises ArgumentError for what is no share."""
    for share in shares:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise ArgumentError(f"{share!r} is no share of channels: 0 < share <= 1")
    if not shares:
        raise ArgumentError("no share of channels was given to try")
    return sorted({float(share) for share in shares})
