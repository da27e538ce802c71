"""The literal table of networks: name -> builder and the flat numbers it is called with."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from torch import nn

from dgc.errors import ArgumentError
from dgc.models.dydensenet import DyDenseNet
from dgc.models.dyresnet18 import DyResNet18


@dataclass(frozen=True)
class Entry:
    build: Callable[..., nn.Module]
    numbers: Mapping[str, Any] = field(default_factory=dict)


MODELS: Mapping[str, Entry] = MappingProxyType(
    {
        "dydensenet": Entry(DyDenseNet),
        "dyresnet18": Entry(DyResNet18),
        "cifar10_dydensenet86_h4": Entry(DyDenseNet, {"num_classes": 10}),
        "cifar100_dydensenet86_h4": Entry(DyDenseNet, {"num_classes": 100}),
        "imagenet_dydensenet_h4": Entry(
            DyDenseNet,
            {
                "stages": (4, 6, 8, 10, 8),
                "growth": (8, 16, 32, 64, 128),
                "num_classes": 1000,
                "stem": "imagenet",
            },
        ),
        "imagenet_dyresnet18_h4": Entry(DyResNet18, {"num_classes": 1000}),
    }
)
RELEASED = tuple(name for name in MODELS if name.endswith("_h4"))


def list_models() -> list[str]:
    """Names that `create_model` takes: two generic networks and the four released ones."""
    return list(MODELS)


def create_model(name: str, **overrides: Any) -> nn.Module:
    """A fresh network, in training mode and on the CPU (or the current torch.device context).

    `overrides` are keyword arguments of DyDenseNet or DyResNet18 (heads, gate_factor, num_classes,
    form, stem, ...). Raises ArgumentError for an unknown name or argument, or numbers that do not
    fit together.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ArgumentError(f"unknown model {name!r}{hint}; known: {', '.join(MODELS)}")
    # asked here, and not by a TypeError out of a constructor: the message can name what there is
    entry = MODELS[name]
    unknown = sorted(set(overrides) - set(_arguments(entry)))
    if unknown:
        raise ArgumentError(
            f"{name} takes no argument {unknown[0]!r}; it takes {', '.join(_arguments(entry))}"
        )
    return entry.build(**{**entry.numbers, **overrides})


def _arguments(entry: Entry) -> list[str]:
    code = entry.build.__init__.__code__
    return list(code.co_varnames[1 : code.co_argcount])
