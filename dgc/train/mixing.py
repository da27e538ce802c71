"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): two images of a batch become one, and its
label is both.

What is mixed depends on seed, epoch and number of the batch alone. Partners are neighbours in the
global batch (0 and 1, 2 and 3, ...), whose order is random: so both lie on one rank, and training
computes the same on any number of ranks. torchvision mixes with the image before, all around the
batch, and is the source of everything else here: one share and one box a batch, either of the two
by the toss of a coin where both are wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from dgc.data.rng import mixing_draws

_TRIES = 64


class Mix(NamedTuple):
    """How a batch is mixed: `share` of an image stays; of CutMix `centre` (row, column) says where
    the partner's box lies, as shares of height and width.
    """

    share: float
    centre: tuple[float, float] | None = None


class Target(NamedTuple):
    """What a batch should be answered with: (B,) labels; of mixed images the partner's too, and how
    much either counts.
    """

    labels: Tensor
    partner: Tensor | None = None
    share: float | Tensor = 1.0
    rest: float | Tensor = 0.0

    def split(self, count: int) -> list[Target]:
        """As images are split by Tensor.tensor_split."""
        parts = self.labels.tensor_split(count)
        if self.partner is None:
            return [Target(part) for part in parts]
        others = self.partner.tensor_split(count)
        return [Target(*pair, self.share, self.rest) for pair in zip(parts, others, strict=True)]

    def cross_entropy(self, logits_BC: Tensor, smoothing: float = 0.0) -> Tensor:
        """The mean over the batch."""
        loss = F.cross_entropy(logits_BC, self.labels, label_smoothing=smoothing)
        if self.partner is None:
            return loss
        other = F.cross_entropy(logits_BC, self.partner, label_smoothing=smoothing)
        return self.share * loss + self.rest * other


@dataclass(frozen=True)
class Mixing:
    """The recipe's wish: the two numbers are the alpha
    of each one's Beta distribution, 0 is off.
    """

    seed: int
    mixup: float
    cutmix: float

    def of(self, epoch: int, batch: int) -> Mix | None:
        """How this batch is mixed; None where nothing is."""
        if not self.mixup and not self.cutmix:
            return None
        # all of a batch's draws at once: their number does not depend on which of them are used
        draws = mixing_draws(self.seed, epoch, batch, 3 + 2 * _TRIES)
        cut = draws[0] < 0.5 if self.mixup and self.cutmix else bool(self.cutmix)
        share = _beta(self.cutmix if cut else self.mixup, draws[3:])
        return Mix(share, (draws[1], draws[2]) if cut else None)


def mixed(images_BCHW: Tensor, labels_B: Tensor, mix: Mix | None) -> tuple[Tensor, Target]:
    """The batch with each image and its neighbour mixed, and what it should be answered with."""
    if mix is None:
        return images_BCHW, Target(labels_B)
    partner_BCHW, partner_B = _neighbours(images_BCHW), _neighbours(labels_B)
    if mix.centre is None:
        rest = 1 - mix.share
        return images_BCHW.lerp(partner_BCHW, rest), Target(labels_B, partner_B, mix.share, rest)
    height, width = images_BCHW.shape[2:]
    top, bottom, left, right = _box(height, width, mix.share, mix.centre)
    pasted = images_BCHW.clone()
    pasted[:, :, top:bottom, left:right] = partner_BCHW[:, :, top:bottom, left:right]
    # the border cuts boxes off: what counts is what was pasted
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return pasted, Target(labels_B, partner_B, share, 1 - share)


def _neighbours(x: Tensor) -> Tensor:
    """0 and 1, 2 and 3, ... change places.
    A batch of an odd size is never mixed, see dgc.train.session.
    """
    pairs = x.view(-1, 2, *x.shape[1:])
    return pairs.flip(1).view(x.shape)


def _box(
    height: int, width: int, share: float, centre: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of torchvision's CutMix."""
    row, column = int(centre[0] * height), int(centre[1] * width)
    half = 0.5 * math.sqrt(1 - share)
    half_height, half_width = int(half * height), int(half * width)
    return (
        max(row - half_height, 0),
        min(row + half_height, height),
        max(column - half_width, 0),
        min(column + half_width, width),
    )


def _beta(alpha: float, draws: list[float]) -> float:
    """A draw of Beta(alpha, alpha), alpha at most 1, by the method of Johnk (1964): of pairs of
    uniform numbers the first that is accepted, which at least half of them are.
    """
    for first, second in zip(draws[::2], draws[1::2], strict=True):
        x, y = first ** (1 / alpha), second ** (1 / alpha)
        if 0 < x + y <= 1:
            return float(x / (x + y))
    # all pairs are refused at most once in 2^64 batches
    return 0.5
