"""Evaluation that counts every sample once, and gives the same digits for any number of ranks,
workers and images loaded at once.

It computes in chunks of images that are always the same (dgc.data.chunks), dealt whole to ranks
(chunk k to rank k mod world); a chunk's counts and its float64 loss go to its own slot, and slots
are added up in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgc.data.chunks import Chunk, chunk_size, chunked
from dgc.errors import DivergedError
from dgc.layers import count_only
from dgc.train.ranks import Ranks

Batch = tuple[Tensor, Tensor]  # images (B, C, H, W), labels (B)
_TOP = 5  # of so many classes or fewer the right one is always among the first five
# top-1 wrong, top-5 wrong, summed loss, samples, those whose logits are not finite, those of which
# top-5 says something
_SLOT = 6


@dataclass(frozen=True)
class Figures:
    """Result of an evaluation; errors in percent, loss is the mean cross entropy.

    `top5_error` is None for five classes or fewer: it would be 0 whatever the network answers.
    `ema_...` are those of the averaged weights, None where there are none.
    """

    top1_error: float
    top5_error: float | None
    loss: float
    samples: int
    ema_top1_error: float | None = None
    ema_top5_error: float | None = None
    ema_loss: float | None = None

    def beside(self, averaged: Figures) -> Figures:
        """These, with those of the averaged weights."""
        return replace(
            self,
            ema_top1_error=averaged.top1_error,
            ema_top5_error=averaged.top5_error,
            ema_loss=averaged.loss,
        )

    def asdict(self) -> dict[str, Any]:
        """All that there is."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class EvaluationStoppedError(Exception):
    """The ranks agreed to leave the evaluation unfinished."""


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    samples: int,
    ranks: Ranks,
    *,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Tensor, Tensor], None] | None = None,
) -> Figures:
    """Run `model` in eval mode over this rank's `batches`: its chunks' images in order, cut
    anywhere; the whole set has `samples` images.

    `stop` is asked once a round by all ranks alike; when it answers yes, EvaluationStoppedError is
    raised. `watch` sees the (logits, labels) of each chunk. Raises DivergedError, on all ranks,
    where the network answers NaN or Inf.
    """
    # one slot a chunk: chunks are the same whatever loads them, so their sums have the same digits
    size = chunk_size(ranks.device)
    total = -(-samples // size)
    slots = torch.zeros(total, _SLOT, dtype=torch.float64, device=ranks.device)
    # restored in the end: the caller goes on training
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for number, (images_BCHW, labels_B) in _rounds(
                chunked(batches, size), total, ranks, stop
            ):
                real = len(labels_B)
                # the last chunk is filled up: gates of what fills it must not be counted
                if real < size:
                    count_only(model, real)
                logits_BC = model(images_BCHW)[:real]
                slots[number].copy_(score(logits_BC, labels_B))
                if watch:
                    watch(logits_BC, labels_B)
    finally:
        count_only(model, None)
        model.train(training)
    return summarize(ranks.sum_(slots))


def _rounds(
    chunks: Iterator[Chunk], total: int, ranks: Ranks, stop: Callable[[], bool]
) -> Iterator[tuple[int, Chunk]]:
    # as many rounds on every rank, also where it has no chunk left: `stop` is asked by all alike
    for number in range(ranks.rank, math.ceil(total / ranks.world) * ranks.world, ranks.world):
        if stop():
            raise EvaluationStoppedError
        if number < total:
            yield number, next(chunks)


def score(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """One slot. Ties count against the network's later classes, as top-k orders them."""
    logits_BC = logits_BC.double()
    ranked_BK = logits_BC.topk(min(_TOP, logits_BC.shape[1]), dim=1).indices
    hit_BK = ranked_BK == labels_B[:, None]
    count = len(labels_B)
    losses = F.cross_entropy(logits_BC, labels_B, reduction="sum")
    bad = (~logits_BC.isfinite().all(1)).sum()
    ranked = count if logits_BC.shape[1] > _TOP else 0
    # made on the device: a list of numbers would be copied there, which the host waits for
    counts = [losses.new_full((), number) for number in (count, ranked)]
    wrong = [count - hit_BK[:, 0].sum(), count - hit_BK.sum()]
    return torch.stack([*wrong, losses, counts[0], bad, counts[1]])


def summarize(slots: Tensor) -> Figures:
    """Add the slots up in order.
    Raises DivergedError where logits were not finite: the largest of NaN is no answer.
    """
    columns = slots.cpu().t().tolist()
    samples, bad, ranked = (int(sum(column)) for column in columns[3:])
    if bad:
        error = DivergedError(
            f"the network answers NaN or Inf on {bad:,} of {samples:,} images, so no error can be"
            " told: its weights or BatchNorm statistics are untrained, have diverged or are damaged"
        )
        error.shared = True  # type: ignore[attr-defined]
        raise error
    # fsum rounds once: the sum of all chunks does not depend on how they were dealt
    wrong1, wrong5, loss = (math.fsum(column) for column in columns[:3])
    top5 = 100 * wrong5 / samples if ranked else None
    return Figures(100 * wrong1 / samples, top5, loss / samples, samples)
