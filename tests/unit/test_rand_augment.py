"""RandAugment and random erasing against torchvision's own, given the same draws."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as tv

from dgc.data import open_images, train_loader
from dgc.data.rand_augment import ERASING_DRAWS, OPERATIONS, erase, rand_augment

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (1, 24, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("which", range(len(OPERATIONS)), ids=[row[0] for row in OPERATIONS])
def test_each_operation_gives_torchvisions_pixels(
    which: int, magnitude: int, negative: bool, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = PIXELS[..., :channels]
    draws = np.array([[(which + 0.5) / len(OPERATIONS), 0.2 if negative else 0.7]])
    ours = rand_augment(pixels, draws, 1, magnitude)
    answers = iter((which, int(negative)))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor(next(answers)))
    image = Image.fromarray(pixels[0, ..., 0] if channels == 1 else pixels[0])
    wanted = tv.RandAugment(1, magnitude, num_magnitude_bins=31)(image)
    assert np.array_equal(ours[0].reshape(24, 24, -1), np.asarray(wanted).reshape(24, 24, -1))


def test_a_box_is_erased_as_often_as_asked_and_no_larger_than_torchvisions() -> None:
    count = 2000
    draws = RNG.random((count, ERASING_DRAWS))
    images = erase(torch.ones(count, 3, 20, 30), draws, 0.25)
    gone = 1 - images.mean((1, 2, 3))
    hit = (gone > 0).float().mean()
    assert float(hit) == pytest.approx(0.25, abs=0.04)
    assert float(gone.max()) <= 0.34
    assert float(gone[gone > 0].min()) >= 0.01
    image = images[int(gone.argmax())]
    rows, columns = (image[0] == 0).any(1), (image[0] == 0).any(0)
    assert torch.equal(image[0] == 0, rows[:, None] & columns[None])  # one box, on all channels
    assert torch.equal(image[0], image[2])


def batches(**options: int) -> Iterator[torch.Tensor]:
    images = open_images(
        name="fashion_mnist",
        augment="crop_flip",
        limit_train=32,
        rand_augment=2,
        random_erasing=0.5,
    )
    loader = train_loader(
        images.train, seed=1, batch_size=16, mean=(0.3, 0.3, 0.3), std=(0.3, 0.3, 0.3), **options
    )
    yield from (batch.images for batch in loader.epoch(2))
    loader.close()


def test_two_ranks_and_two_workers_see_the_pixels_of_one() -> None:
    whole = torch.cat(list(batches()))
    assert torch.equal(whole, torch.cat(list(batches(workers=2))))
    ranks = [list(batches(rank=rank, world_size=2)) for rank in (0, 1)]
    assert torch.equal(whole, torch.cat([x for pair in zip(*ranks, strict=True) for x in pair]))
    plain = open_images(name="fashion_mnist", augment="crop_flip", limit_train=32)
    assert plain.train.view.rand_augment == 0
    assert plain.val.view.random_erasing == 0.0
