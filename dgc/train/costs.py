"""What a network costs as it is now, and what it will at the end of its pruning schedule.

A result is about the weights that were evaluated: where the schedule was cut short, fewer channels
are switched off than it wanted, and more is multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from dgc.hub import recorded_networks
from dgc.layers import iter_dgc, set_progress
from dgc.layers.macs import Complexity, count
from dgc.recipe.load import Recipe

SCHEDULE_END = "macs_at_end_of_schedule"


@contextmanager
def end_of_schedule(model: nn.Module) -> Iterator[None]:
    """Within the block each layer has as many channels off as at the end of the schedule."""
    # remembered layer by layer: a schedule that was cut short has a state of its own
    current = {name: layer.n_inactive for name, layer in iter_dgc(model)}
    set_progress(model, 1.0)
    try:
        yield
    finally:
        for name, layer in iter_dgc(model):
            layer.set_inactive(current[name])


class CostMeter:
    """What a network costs while it is being pruned. A count runs a copy of the network once, so it
    is made again only where the number of channels that are off has changed since.
    """

    def __init__(self, model: nn.Module, image_size: int) -> None:
        self._model, self._image_size = model, image_size
        self._off: tuple[int, ...] | None = None

    def now(self) -> Complexity:
        """Parameters and MACs of one image with the channels that are off at present."""
        # the number of channels that are off is all that MACs depend on
        off = tuple(layer.n_inactive for _, layer in iter_dgc(self._model))
        if off != self._off:
            self._found = count(self._model, self._image_size, device="cpu")
            self._off = off
        return self._found


def three_ways(counted: Complexity) -> dict[str, int]:
    """The sums as records have them."""
    return {"dense": counted.dense, "promised": counted.promised, "executed": counted.executed}


def now_and_at_the_end(model: nn.Module, image_size: int) -> dict[str, Any]:
    """{"macs", SCHEDULE_END, "parameters"}:
    as the network is, and as it is pruned when its schedule ends.
    """
    meter = CostMeter(model, image_size)
    now = meter.now()
    with end_of_schedule(model):
        last = meter.now()
    return {"macs": three_ways(now), SCHEDULE_END: three_ways(last), "parameters": now.params}


def of_checkpoint(
    recipe: Recipe, tensors: Mapping[str, Tensor], structure: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """MACs of the network of a checkpoint: it stores how many channels of each layer are off."""
    model = recorded_networks.recorded(recipe, structure)
    # the checkpoint's own numbers, since nobody knows how far its schedule had come
    for name, layer in iter_dgc(model):
        layer.set_inactive(int(tensors[f"{name}.inactive_channels"].item()))
    return three_ways(CostMeter(model, recipe.data.image_size).now())
