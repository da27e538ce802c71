"""A network in two precisions over the same images: which answers change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dgc.train.ranks import Ranks


class Paired:
    """Logits of a first pass, held against those
    of a second over the same images in the same order.
    """

    def __init__(self) -> None:
        self._first: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._at = 0
        # answers that changed, that became right, that became wrong; squares of differences, of
        # logits
        self._counts = torch.zeros(3, dtype=torch.int64)
        self._squares = torch.zeros(2, dtype=torch.float64)

    def keep(self, logits_BC: Tensor, labels_B: Tensor) -> None:
        """In the first pass, whose answers are judged."""
        self._first.append(logits_BC.clone())
        self._labels.append(labels_B.clone())

    def compare(self, logits_BC: Tensor, labels_B: Tensor) -> None:
        """In the second pass, in float32, that the first is held against."""
        first, labels = self._first[self._at], self._labels[self._at]
        assert torch.equal(labels, labels_B), "the passes saw other images"
        self._at += 1
        found, wanted = first.argmax(1), logits_BC.argmax(1)
        changed = found != wanted
        right, was_right = changed & (found == labels), changed & (wanted == labels)
        self._counts += torch.stack([t.sum() for t in (changed, right, was_right)])
        difference = (first - logits_BC).double().square().sum()
        self._squares += torch.stack([difference, logits_BC.double().square().sum()])

    def facts(self, top1_error: float, ranks: Ranks) -> dict[str, Any]:
        """`top1_error` is that of the second pass."""
        changed, right, wrong = ranks.sum_(self._counts).tolist()
        difference, whole = ranks.sum_(self._squares).tolist()
        return {
            "top1_error": top1_error,
            "changed": changed,
            "became_right": right,
            "became_wrong": wrong,
            "logits_error": (difference / whole) ** 0.5 if whole else 0.0,
        }
