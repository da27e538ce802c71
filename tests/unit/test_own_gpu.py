"""Which GPU a rank takes: with mocked counts, since the machines that run tests have none."""

from __future__ import annotations

import pytest
import torch

from dgc.errors import UsageError
from dgc.train.ranks import check_own_gpus, choose_device


@pytest.mark.parametrize(
    ("seen", "local_rank", "device"),
    [(1, 0, "cuda:0"), (1, 3, "cuda:0"), (4, 3, "cuda:3"), (0, 1, "cpu")],
)
def test_a_rank_takes_the_one_gpu_that_it_is_shown_or_its_own_of_many(
    monkeypatch: pytest.MonkeyPatch, seen: int, local_rank: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    assert str(choose_device("auto", local_rank)) == device


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        UsageError, match=r"rank 2 on this machine has no GPU of its own \(2 seen\)"
    ):
        choose_device("auto", 2)


def test_ranks_that_share_a_gpu_are_named() -> None:
    check_own_gpus([("a", "GPU-1"), ("a", "GPU-2"), ("b", "GPU-1")])
    with pytest.raises(UsageError, match="ranks 0 and 2 have one GPU between them on a: use fewer"):
        check_own_gpus([("a", "GPU-1"), ("b", "GPU-1"), ("a", "GPU-1")])
