"""Which samples make which batch, and which rank takes which part of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dgc.data import chunks
from dgc.data.rng import Indices, order


@dataclass(frozen=True)
class Task:
    """One batch of one rank: everything a worker needs to make it.
    `step` counts the batches of the epoch.
    """

    epoch: int
    step: int
    indices: Indices


@dataclass(frozen=True)
class TrainSampler:
    """The batches of an epoch: global batch b is order[b*B :
    (b+1)*B], whatever the number of ranks.

    The last batch of an epoch may be short, as in the released code; it is left out only where it
    could not give every rank and accumulation step two samples: batch normalisation learns nothing
    from one (of 1 x 1 maps it refuses it).
    """

    count: int
    seed: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    def __len__(self) -> int:
        whole, rest = divmod(self.count, self.batch_size)
        # whole batches, and the short one if it is large enough for everybody
        return whole + (rest >= 2 * self.world_size * self.accumulate)

    def tasks(self, epoch: int, start: int = 0) -> Iterator[Task]:
        """The tasks of `epoch` from batch `start` on.
        Nothing is computed for the batches before.
        """
        indices = order(self.seed, epoch, self.count)
        for step in range(start, len(self)):
            batch = indices[step * self.batch_size : (step + 1) * self.batch_size]
            # nearly equal parts that together are the batch: a short batch is shared out too
            first, last = (
                len(batch) * part // self.world_size for part in (self.rank, self.rank + 1)
            )
            yield Task(epoch, step, batch[first:last])


@dataclass(frozen=True)
class EvalSampler:
    """Each sample once, in order, no padding:
    rank r takes the whole chunks r, r + world_size, ... of `chunk` samples.

    `batch_size` says how many of its samples are made at once, and nothing else: see
    dgc.data.chunks.
    """

    count: int
    batch_size: int
    rank: int = 0
    world_size: int = 1
    chunk: int = chunks.ON_CPU

    def __len__(self) -> int:
        return -(-len(self._mine()) // self.batch_size)

    def tasks(self, epoch: int = 0, start: int = 0) -> Iterator[Task]:
        mine = self._mine()
        for step in range(start, len(self)):
            yield Task(epoch, step, mine[step * self.batch_size : (step + 1) * self.batch_size])

    def _mine(self) -> Indices:
        every = np.arange(self.count)
        # Whole chunks, dealt like cards: what is computed together is the same for any number of
        # ranks.
        mine: Indices = every[every // self.chunk % self.world_size == self.rank]
        return mine
