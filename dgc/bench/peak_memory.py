"""What a training step keeps in memory until its backward pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def saved_bytes(net: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes of the distinct storages that `forward` keeps for backward,
    parameters and buffers of `net` left out.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*net.parameters(), *net.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # By storage and not by tensor: views of one activation are kept once.
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
        total = sum(kept.values())  # while the graph, and with it every storage, is alive
    del result
    return total
