"""What a converted network is made of, as plain data, and a network from it: the layers that were
recorded, never the rule again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from dgc.conversion import rules, start
from dgc.conversion.network import swap
from dgc.conversion.rules import Place
from dgc.errors import ArgumentError, IntegrityError
from dgc.layers import DynamicGroupConv2d, iter_dgc

SCHEMA_VERSION = 1
_SHAPE = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
_NUMBERS = ("heads", "gate_factor", "squeeze_rate")


def structure(model: nn.Module) -> dict[str, Any]:
    """JSON values: each converted layer with its numbers, and a digest of all keys and shapes.

    `dgc.rebuild` puts the layers back into the original network; the weights are in its state dict.
    """
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    layers = {
        name: _numbers(layer) | _others(names[layer])
        for name, layer in iter_dgc(model)
        if layer.weight_key == start.WEIGHT_KEY
    }
    return {"schema_version": SCHEMA_VERSION, "layers": layers, "keys": keys_digest(model)}


def _numbers(layer: DynamicGroupConv2d) -> dict[str, Any]:
    values = {key: getattr(layer, key) for key in (*_SHAPE, *_NUMBERS)}
    return values | {"bias": layer.bias is not None}


def _others(names: list[str]) -> dict[str, Any]:
    return {"also": names[1:]} if len(names) > 1 else {}


def keys_digest(model: nn.Module) -> str:
    """SHA-256 of the names and shapes in the network's state dict."""
    described = {key: list(value.shape) for key, value in model.state_dict().items()}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def rebuild(model: nn.Module, structure: Mapping[str, Any]) -> nn.Module:
    """Put the recorded layers into the original network, in place and without weights; returns it.

    Raises IntegrityError where a layer is not there or is another one, or the whole does not have
    the keys and shapes that were recorded.
    """
    layers = _layers(structure)
    if any(True for _ in iter_dgc(model)) and layers:
        raise ArgumentError("the network holds dynamic layers already: rebuild the original")
    found = {place.name: place for place in rules.places(model)}
    made = {}
    for name, numbers in layers.items():
        place = found.get(name)
        if place is None:
            raise IntegrityError(f"structure: {name} is no convolution of {type(model).__name__}")
        made[place] = _layer(place, numbers)
    swap(model, made)
    recorded = structure.get("keys")
    if recorded is not None and keys_digest(model) != recorded:
        swap(model, {place: place.conv for place in made})
        raise IntegrityError(
            f"structure: {type(model).__name__} does not have the keys and shapes that were"
            " recorded: it was built with other arguments, or by another version of its library"
        )
    return model


def _layers(structure: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    version = structure.get("schema_version") if isinstance(structure, Mapping) else None
    if version != SCHEMA_VERSION:
        raise IntegrityError(
            f"structure: schema_version is {version!r}, and this version reads {SCHEMA_VERSION}"
        )
    layers = structure.get("layers")
    wanted = {*_SHAPE, *_NUMBERS, "bias"}
    if not isinstance(layers, Mapping) or not all(
        isinstance(numbers, Mapping) and wanted <= set(numbers) for numbers in layers.values()
    ):
        raise IntegrityError("structure: its layers are not as dgc.structure writes them")
    return {str(name): dict(numbers) for name, numbers in layers.items()}


def _layer(place: Place, numbers: Mapping[str, Any]) -> DynamicGroupConv2d:
    conv = place.conv
    there: dict[str, Any] = {"bias": conv.bias is not None}
    for key in _SHAPE:
        value = getattr(conv, key)
        there[key] = value if isinstance(value, int) else (*value,)
    for key, value in there.items():
        recorded = numbers[key]
        if value not in (recorded, (recorded, recorded)):
            raise IntegrityError(f"structure: {place.name} has {key} {value}, recorded {recorded}")
    try:
        layer = start.blank(conv, *(numbers[key] for key in _NUMBERS))
    except ArgumentError as error:
        raise IntegrityError(f"structure: {place.name}: {error}") from error
    return start.at_home(layer, conv)
