"""What a network costs as it is now, and what it will at the end of its pruning schedule.

A result is about the weights that were evaluated: where the schedule was cut short, fewer channels
are switched off than it wanted, and more is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dgc.layers import iter_dgc, set_progress
from dgc.layers.macs import Complexity, count
from dgc.models import create_model
from dgc.recipe.load import Recipe

SCHEDULE_END = "macs_at_end_of_schedule"


@contextmanager
def end_of_schedule(model: nn.Module) -> Iterator[None]:
    """Within the block each layer has as many channels off as at the end of the schedule."""
    current = {name: layer.n_inactive for name, layer in iter_dgc(model)}
    set_progress(model, 1.0)
    try:
        yield
    finally:
        for name, layer in iter_dgc(model):
            layer.set_inactive(current[name])


def three_ways(counted: Complexity) -> dict[str, int]:
    """The sums as records have them."""
    return {"dense": counted.dense, "promised": counted.promised, "executed": counted.executed}


def macs_now(model: nn.Module, image_size: int) -> dict[str, int]:
    """MACs of one image with the channels that are off at present."""
    return three_ways(count(model, image_size, device="cpu"))


def now_and_at_the_end(model: nn.Module, image_size: int) -> dict[str, Any]:
    """{"macs", SCHEDULE_END}: as the network is, and as it is pruned at the end of its schedule."""
    with end_of_schedule(model):
        last = macs_now(model, image_size)
    return {"macs": macs_now(model, image_size), SCHEDULE_END: last}


def of_checkpoint(recipe: Recipe, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """MACs of the network of a checkpoint: it stores how many channels of each layer are off."""
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    for name, layer in iter_dgc(model):
        layer.set_inactive(int(tensors[f"{name}.inactive_channels"].item()))
    return macs_now(model, recipe.data.image_size)
