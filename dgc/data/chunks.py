"""The chunks in which an evaluation computes: so many images by their index, always the same ones
at the same place.

A convolution of PyTorch gives other last bits at another batch size, so a figure is the same on any
number of ranks, workers and images loaded at once only where the computed batch never changes. The
last chunk is padded to full size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

ON_CPU, ON_GPU = 64, 256


class Chunk(NamedTuple):
    """`images` (chunk, C, H, W), of which the first `len(labels)`
    are real and the rest repeats the last of them.
    """

    images: Tensor
    labels: Tensor


def chunk_size(device: torch.device) -> int:
    """Images a chunk on this kind of device."""
    return ON_CPU if device.type == "cpu" else ON_GPU


def chunked(batches: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[Chunk]:
    """The images of `batches` (of any size each) in their order, `size` at a time."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    held = 0
    for more_images, more_labels in batches:
        # First what the open chunk still lacks, then whole chunks; views, nothing is copied but
        # where a chunk spans two batches.
        for part_images, part_labels in _cut(more_images, more_labels, size, size - held):
            images.append(part_images)
            labels.append(part_labels)
            held += len(part_labels)
            if held == size:
                yield Chunk(_joined(images), _joined(labels))
                images, labels, held = [], [], 0
    if held:
        yield Chunk(_padded(_joined(images), size), _joined(labels))


def _cut(images: Tensor, labels: Tensor, size: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in parts: `first` images, then `size` at a time."""
    places = [0, *range(first, len(labels), size), len(labels)]
    for begin, end in itertools.pairwise(places):
        yield images[begin:end], labels[begin:end]


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _padded(images: Tensor, size: int) -> Tensor:
    # a real image once more: no kind of input that the data set does not have
    return torch.cat([images, images[-1:].expand(size - len(images), *images.shape[1:])])
