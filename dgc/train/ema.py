"""An exponential moving average of a network's weights, evaluated and exported beside them.

Parameters are averaged, and BatchNorm's running statistics (as torchvision's and timm's training
do); all other buffers are the network's own, so that with averaged weights it is pruned as far as
the one that is trained. At step t the decay is at most (1 + t) / (10 + t), as in TensorFlow:
otherwise the random weights of the beginning would stay in the average for 1 / (1 - decay) steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_STATISTICS = ("running_mean", "running_var")


class WeightAverage:
    """An average of a module's weights; what is not averaged is the module's own."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._source = module.state_dict()  # the module's own tensors, not copies
        names = {name for name, _ in module.named_parameters()}
        names |= {name for name in self._source if name.rpartition(".")[2] in _STATISTICS}
        # in two lists of one order: an update is one call, and looks nothing up
        self._names = [name for name in self._source if name in names]
        self._current = [self._source[name] for name in self._names]
        self._average = [value.detach().clone() for value in self._current]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the update of step number `step`, counted from 1. Reads no device."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._current, 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """As the module's state dict, with the averaged weights."""
        return {**self._source, **dict(zip(self._names, self._average, strict=True))}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint; keys and shapes were checked."""
        torch._foreach_copy_(self._average, [tensors[name] for name in self._names])

    @contextmanager
    def in_its_place(self) -> Iterator[None]:
        """Inside, the module has the averaged weights."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        # values change places, tensors stay: whoever holds a parameter goes on holding it
        kept = [value.clone() for value in self._average]
        torch._foreach_copy_(self._average, self._current)
        torch._foreach_copy_(self._current, kept)
