"""Evaluation that counts every sample once, and gives the same digits under any number of ranks.

Batches are dealt whole to ranks (batch k to rank k mod world), so each is computed as one process would compute it;
its counts and its float64 loss go to its own slot, and slots are added up in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgc.train.distributed import Ranks

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels (B)
_SLOT = 4  # top-1 wrong, top-5 wrong, summed loss, samples


@dataclass(frozen=True)
class Figures:
    """Result of an evaluation; errors in percent, loss is the mean cross entropy."""

    top1_error: float
    top5_error: float
    loss: float
    samples: int

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


class EvaluationStoppedError(Exception):
    """The ranks agreed to leave the evaluation unfinished."""


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    total_batches: int,
    ranks: Ranks,
    *,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Tensor, Tensor], None] | None = None,
) -> Figures:
    """Run `model` in eval mode over this rank's `batches` (numbers rank, rank + world, ... of `total_batches`).

    `stop` is asked once a round by all ranks alike; when it answers yes, EvaluationStoppedError is raised. `watch` sees
    the (logits, labels) of each batch.
    """
    slots = torch.zeros(total_batches, _SLOT, dtype=torch.float64, device=ranks.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for number, (images_BCHW, labels_B) in _rounds(batches, total_batches, ranks, stop):
                logits_BC = model(images_BCHW)
                slots[number].copy_(score(logits_BC, labels_B))
                if watch:
                    watch(logits_BC, labels_B)
    finally:
        model.train(training)
    return summarize(ranks.sum_(slots))


def _rounds(
    batches: Iterable[Batch], total: int, ranks: Ranks, stop: Callable[[], bool]
) -> Iterator[tuple[int, Batch]]:
    mine = iter(batches)
    for number in range(ranks.rank, math.ceil(total / ranks.world) * ranks.world, ranks.world):
        if stop():
            raise EvaluationStoppedError
        if number < total:
            yield number, next(mine)


def score(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """One slot. Ties count against the network's later classes, as top-k orders them."""
    logits_BC = logits_BC.double()
    ranked_BK = logits_BC.topk(min(5, logits_BC.shape[1]), dim=1).indices
    hit_BK = ranked_BK == labels_B[:, None]
    count = len(labels_B)
    losses = F.cross_entropy(logits_BC, labels_B, reduction="sum")
    return torch.stack([count - hit_BK[:, 0].sum(), count - hit_BK.sum(), losses, losses.new_tensor(count)])


def summarize(slots: Tensor) -> Figures:
    """Add the slots up in batch order."""
    wrong1, wrong5, loss, samples = (math.fsum(column) for column in slots.cpu().t().tolist())
    return Figures(100 * wrong1 / samples, 100 * wrong5 / samples, loss / samples, int(samples))
