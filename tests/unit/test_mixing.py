"""Mixup and CutMix: torchvision's arithmetic, on any number of ranks, from numbers without a state."""

from __future__ import annotations

import statistics

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2

from dgc.train.mixing import Mix, Mixing, mixed

IMAGES = torch.randn(8, 3, 12, 10, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 4


@pytest.mark.parametrize("mix", [Mix(0.3), Mix(0.7, (0.1, 0.95)), Mix(0.01, (0.5, 0.5)), Mix(1.0)])
def test_two_halves_are_the_whole(mix: Mix) -> None:
    whole, target = mixed(IMAGES, LABELS, mix)
    halves = [mixed(IMAGES[part], LABELS[part], mix) for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(whole, torch.cat([images for images, _ in halves]))
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    parts = target.split(2)
    assert [part.labels.tolist() for part in parts] == [t.labels.tolist() for _, t in halves]
    apart = sum(part.cross_entropy(logits[4 * i : 4 * i + 4]) / 2 for i, part in enumerate(parts))
    torch.testing.assert_close(apart, target.cross_entropy(logits))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_soft_labels(smoothing: float) -> None:
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    _, target = mixed(IMAGES, LABELS, Mix(0.3))
    assert target.partner is not None
    soft = 0.3 * F.one_hot(target.labels, 4) + 0.7 * F.one_hot(target.partner, 4)
    wanted = F.cross_entropy(logits, soft.float(), label_smoothing=smoothing)
    torch.testing.assert_close(target.cross_entropy(logits, smoothing), wanted)


@pytest.mark.parametrize(("row", "column", "share"), [(5, 4, 0.5), (0, 9, 0.2), (11, 0, 0.9)])
def test_the_box_is_torchvisions(
    row: int, column: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both images of a pair, so that torchvision's neighbour around the batch is ours."""
    theirs = v2.CutMix(num_classes=4)
    places = iter((column, row))  # torchvision draws the column first
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([next(places)]))
    monkeypatch.setattr(theirs, "_dist", torch.distributions.Categorical(torch.ones(1)))
    monkeypatch.setattr(theirs._dist, "sample", lambda *_: torch.tensor([share]))
    pair, labels = IMAGES[:2], LABELS[:2]
    wanted, soft = theirs(pair, labels)
    ours, target = mixed(pair, labels, Mix(share, ((row + 0.5) / 12, (column + 0.5) / 10)))
    assert torch.equal(ours, wanted)
    assert target.partner is not None
    rest = 1 - target.share
    told = target.share * F.one_hot(target.labels, 4) + rest * F.one_hot(target.partner, 4)
    torch.testing.assert_close(told.float(), soft)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    shares = [Mixing(0, alpha, 0.0).of(1, batch).share for batch in range(4000)]  # type: ignore[union-attr]
    variance = 1 / (4 * (2 * alpha + 1))
    assert statistics.fmean(shares) == pytest.approx(0.5, abs=4 * (variance / 4000) ** 0.5)
    assert statistics.pvariance(shares) == pytest.approx(variance, rel=0.06)


def test_each_batch_has_its_own_and_always_the_same() -> None:
    both = Mixing(3, 0.4, 1.0)
    first = [both.of(epoch, batch) for epoch in (0, 1) for batch in range(50)]
    assert first == [both.of(epoch, batch) for epoch in (0, 1) for batch in range(50)]
    assert len(set(first)) == 100
    cut = sum(mix.centre is not None for mix in first if mix is not None)
    assert 30 <= cut <= 70
    assert Mixing(3, 0.0, 0.0).of(0, 0) is None
