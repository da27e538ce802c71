"""A share of kept channels of its own for each dynamic layer of a network, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import nn

from dgc.conversion.rules import matches
from dgc.errors import ArgumentError
from dgc.layers import DynamicGroupConv2d, iter_dgc
from dgc.schedule import inactive_channels


def set_gate_factors(model: nn.Module, factors: Mapping[str, float]) -> None:
    """Let the dynamic layers that a name means keep that share of their input channels at the end
    of the schedule: `{"layer1": 0.75, "layer2.*.conv1": 0.5}`, in place.

    A name is that of a layer or of a module that holds layers, and * may stand in it; of several
    that mean a layer, the longest one counts. What is switched off changes with the next
    `dgc.set_progress` (or the next step of a `dgc.PruningSchedule`). Raises ArgumentError for a
    name that means no dynamic layer, and for a share that is none; the network is then as it was.
    """
    layers = dict(iter_dgc(model))
    wanted: dict[str, float] = {}
    # not their order: a mapping that was written down may come back in another one
    for pattern, share in sorted(factors.items(), key=lambda item: (len(str(item[0])), item[0])):
        meant = [name for name in layers if matches(name, str(pattern))]
        if not meant:
            raise ArgumentError(f"{pattern!r} means no dynamic layer; {_near(pattern, layers)}")
        for name in meant:
            wanted[name] = _checked(pattern, share, layers[name])
    for name, share in wanted.items():
        layers[name].gate_factor = share


def _checked(pattern: str, share: Any, layer: DynamicGroupConv2d) -> float:
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < float(share) <= 1:
        raise ArgumentError(f"{pattern!r}: {share!r} is no share of channels: 0 < share <= 1")
    channels = layer.in_channels
    if inactive_channels(1.0, channels, float(share)) >= channels:
        raise ArgumentError(f"{pattern!r}: {share!r} keeps no channel of {channels}")
    return float(share)


def _near(pattern: str, layers: Mapping[str, Any]) -> str:
    names = list(layers)
    if not names:
        return "the network has none: convert it first, or take form dgc"
    parts = [name.split(".") for name in names]
    modules = {".".join(part[:depth]) for part in parts for depth in range(1, len(part))}
    near = difflib.get_close_matches(str(pattern), [*sorted(modules), *names], 3, 0.5)
    if near:
        return f"near it are {', '.join(near)}"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"there are {', '.join(names[:3])}{more}"
