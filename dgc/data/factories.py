"""Make loaders from flat arguments."""

from __future__ import annotations

import torch

from dgc.data.chunks import chunk_size
from dgc.data.image_sets import ImageSet
from dgc.data.loader import Loader
from dgc.data.normalise import Normalise
from dgc.data.sampler import EvalSampler, TrainSampler

RGB = tuple[float, float, float]
_CPU = torch.device("cpu")


def train_loader(
    images: ImageSet,
    *,
    seed: int,
    batch_size: int,
    mean: RGB,
    std: RGB,
    rank: int = 0,
    world_size: int = 1,
    accumulate: int = 1,
    workers: int = 0,
    device: torch.device = _CPU,
    dtype: torch.dtype = torch.float32,
) -> Loader:
    """Batches of the training set; `batch_size` is global,
    this rank gets its share (images are on `device`).

    Global batch b of an epoch holds the same samples, equally augmented, for any rank count and
    number of workers.
    """
    sampler = TrainSampler(len(images), seed, batch_size, rank, world_size, accumulate)
    return Loader(images, sampler, Normalise(mean, std, dtype, device), seed=seed, workers=workers)


def eval_loader(
    images: ImageSet,
    *,
    batch_size: int,
    mean: RGB,
    std: RGB,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    device: torch.device = _CPU,
    dtype: torch.dtype = torch.float32,
) -> Loader:
    """Each sample exactly once over all ranks, no padding;
    the ranks take whole chunks in turn (dgc.data.chunks).

    `batch_size` is how many images this rank loads at once.
    """
    sampler = EvalSampler(len(images), batch_size, rank, world_size, chunk_size(device))
    # nothing is drawn at random in an evaluation, so the seed says nothing
    return Loader(images, sampler, Normalise(mean, std, dtype, device), seed=0, workers=workers)
