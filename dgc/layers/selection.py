"""Which channels are on: the discrete part, kept apart from the convolution because it has another
oracle.
"""

from __future__ import annotations

import torch
from torch import Tensor


def switch_off(gates_BGC: Tensor, n_inactive: int | Tensor) -> Tensor:
    """Zero every gate that is <= the n-th smallest
    of its sample and head, ties included. NaN stays NaN.
    """
    if isinstance(n_inactive, Tensor):
        return switch_off_traced(gates_BGC, n_inactive)
    if n_inactive == 0:
        return gates_BGC
    # detached: the choice has no derivative, the gates that stay on have theirs
    threshold_BG1 = gates_BGC.detach().kthvalue(n_inactive, dim=-1, keepdim=True).values
    # ties go off together: which of equal gates stays must not depend on their order
    return gates_BGC.masked_fill(gates_BGC <= threshold_BG1, 0.0)


def switch_off_traced(gates_BGC: Tensor, n_inactive_1: Tensor) -> Tensor:
    """The same with n as a tensor, so that a traced graph holds for every n."""
    ordered_BGC = gates_BGC.detach().sort(dim=-1).values
    position_1 = n_inactive_1.to(torch.int64)
    # for n = 0 any position will do: the mask below is then empty
    threshold_BG1 = ordered_BGC.index_select(-1, (position_1 - 1).clamp(min=0))
    return gates_BGC.masked_fill((gates_BGC <= threshold_BG1) & (position_1 > 0), 0.0)
