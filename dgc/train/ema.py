"""An exponential moving average of a network's weights, evaluated and exported beside them.

Parameters are averaged, and BatchNorm's running statistics (as torchvision's and timm's training
do); all other buffers are copied, so that a network with averaged weights is pruned as far as the
one that is trained. At step t the decay is at most (1 + t) / (10 + t), as in
TensorFlow: otherwise the random weights of the beginning would stay in the average for 1 / (1 -
decay) steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_STATISTICS = ("running_mean", "running_var")


class WeightAverage:
    """`tensors`: as the state dict of the module that is averaged, in tensors of its own."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._source = module.state_dict()  # the module's own tensors, not copies
        self.tensors = {name: value.detach().clone() for name, value in self._source.items()}
        names = {name for name, _ in module.named_parameters()}
        names |= {name for name in self.tensors if name.rpartition(".")[2] in _STATISTICS}
        self._averaged = [name for name in self.tensors if name in names]
        self._others = [name for name in self.tensors if name not in names]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the update of step number `step`, counted from 1. Reads no device."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average = [self.tensors[name] for name in self._averaged]
        torch._foreach_lerp_(average, [self._source[name] for name in self._averaged], 1 - decay)
        for name in self._others:
            self.tensors[name].copy_(self._source[name])

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint; keys and shapes were checked."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

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
        for name, value in self.tensors.items():
            kept = value.clone()
            value.copy_(self._source[name])
            self._source[name].copy_(kept)
