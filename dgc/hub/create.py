"""What `dgc.create_model` is: the networks' own table, and the released weights where they are
asked for.

Here, above both, because the networks know nothing of the hub that stands on them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from dgc import models
from dgc.errors import UsageError


def create_model(name: str, *, pretrained: bool = False, **overrides: Any) -> nn.Module:
    """A network by name (`dgc.list_models()`), fresh and in training mode; or with its released
    weights, in eval mode.

    `overrides` are arguments of the network (heads, gate_factor, num_classes, form, ...). With
    `pretrained` the weights are downloaded at the first use (see docs/checkpoints.md); they fit the
    released network alone, so that overrides are refused. Raises UsageError, and what
    `dgc.hub.load_pretrained` raises.
    """
    if not pretrained:
        return models.create_model(name, **overrides)
    if overrides:
        raise UsageError(
            f"create_model({name!r}, pretrained=True) takes no {', '.join(overrides)}: the released"
            " weights fit the released network alone"
        )
    from dgc.hub.pretrained import load_pretrained

    return load_pretrained(name).model
