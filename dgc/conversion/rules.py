"""Which convolutions can become dynamic layers, and of each other one why it cannot."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from dgc.errors import ArgumentError

KERNELS = (1, 3, 5)
LEAST_CHANNELS = 16
LAYER_KEYS = ("heads", "gate_factor", "squeeze_rate")


@dataclass(frozen=True)
class Place:
    """One convolution: all names under which the network holds it, the first one counting."""

    names: tuple[str, ...]
    conv: nn.Conv2d

    @property
    def name(self) -> str:
        return self.names[0]


def places(model: nn.Module) -> list[Place]:
    """Every Conv2d of the network, each once."""
    found: dict[nn.Conv2d, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Conv2d):
            found.setdefault(module, []).append(name)
    return [Place(tuple(names), conv) for conv, names in found.items()]


def shared_weights(model: nn.Module) -> set[int]:
    """Ids of the parameters that more than one module holds."""
    holders = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    return {identity for identity, count in holders.items() if count > 1}


def why_not(conv: nn.Conv2d, heads: int, shared: set[int]) -> str | None:
    """Why a convolution stays as it is, from itself alone; None where it can be converted."""
    if type(conv) is not nn.Conv2d:
        return f"is a {type(conv).__name__}, which may compute something of its own"
    if conv._forward_hooks or conv._forward_pre_hooks:
        return "has hooks (weight norm, for example)"
    if id(conv.weight) in shared:
        return "shares its weights with another module"
    if conv.groups != 1:
        return "depthwise" if conv.groups == conv.in_channels else f"{conv.groups} groups"
    if conv.in_channels < LEAST_CHANNELS:
        return f"{conv.in_channels} input channels, fewer than {LEAST_CHANNELS}"
    return _geometry(conv) or _heads(conv, heads)


def _geometry(conv: nn.Conv2d) -> str | None:
    if isinstance(conv.padding, str):
        return f"padding={conv.padding!r}"
    if conv.padding_mode != "zeros":
        return f"padding_mode={conv.padding_mode!r}"
    for name in ("kernel_size", "stride", "padding", "dilation"):
        value = getattr(conv, name)
        if value[0] != value[1]:
            return f"{name} {value[0]}x{value[1]} is not square"
    if conv.kernel_size[0] not in KERNELS:
        return f"kernel {conv.kernel_size[0]}x{conv.kernel_size[0]}, not 1, 3 or 5"
    if conv.weight.dtype not in (torch.float32, torch.float64):
        return f"{str(conv.weight.dtype).removeprefix('torch.')} cannot tell its gates apart"
    return None


def _heads(conv: nn.Conv2d, heads: int) -> str | None:
    for what, channels in (("input", conv.in_channels), ("output", conv.out_channels)):
        if channels % heads:
            return f"{channels} {what} channels are no multiple of {heads} heads"
    return None


# --- patterns -------------------------------------------------------------------------------------


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern (as of a shell: * and ?) means this layer, or a module that it is in."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[: i + 1]), pattern) for i in range(len(parts)))


def check_patterns(found: Sequence[Place], given: Mapping[str, Iterable[str]]) -> None:
    """Raises ArgumentError for a pattern that means no convolution, with names that are like it."""
    names = [name for place in found for name in place.names]
    for what, patterns in given.items():
        for pattern in patterns:
            if any(matches(name, pattern) for name in names):
                continue
            near = difflib.get_close_matches(pattern, [*_prefixes(names), *names], 3, 0.5)
            hint = f"near it are {', '.join(near)}" if near else f"there are {_some(names)}"
            raise ArgumentError(f"{what}: {pattern!r} matches no convolution; {hint}")


def _prefixes(names: Iterable[str]) -> list[str]:
    found = {
        ".".join(parts[: i + 1])
        for parts in (name.split(".") for name in names)
        for i in range(len(parts) - 1)
    }
    return sorted(found)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def patterns(what: str, given: object) -> tuple[str, ...]:
    """A list of patterns as it was given."""
    if isinstance(given, str):
        return (given,)
    found = tuple(given) if isinstance(given, Iterable) else (None,)
    if all(isinstance(item, str) for item in found):
        return found
    raise ArgumentError(f"{what}={given!r} must be a list of names, in which * may stand")


def per_layer(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """`layers` of a conversion: pattern -> numbers of the layers that it means."""
    found: dict[str, dict[str, Any]] = {}
    for pattern, numbers in given.items():
        if not isinstance(numbers, Mapping):
            raise ArgumentError(f"layers: {pattern!r} needs {{{', '.join(LAYER_KEYS)}: ...}}")
        for key in numbers:
            if key not in LAYER_KEYS:
                near = difflib.get_close_matches(str(key), LAYER_KEYS, 1)
                hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(LAYER_KEYS)}"
                raise ArgumentError(f"layers: {pattern!r}: unknown key {key!r} ({hint})")
        found[str(pattern)] = dict(numbers)
    return found
