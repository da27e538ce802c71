"""A step that diverged is made again for its report as it was trained: in the same pieces."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.train.optimizers import GuardedSGD
from dgc.train.ranks import Ranks
from dgc.train.step import Updater

CPU = Ranks(0, 1, 0, torch.device("cpu"))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_loss_and_norm_are_those_of_the_step_and_no_piece_is_larger(accumulate: int) -> None:
    torch.manual_seed(0)
    net = dgc.create_model("dydensenet", stages=(1, 1), growth=(8, 8), num_classes=4).train()
    sgd = GuardedSGD(
        net.named_parameters(), torch.zeros(1), momentum=0.0, weight_decay=0.0, nesterov=False
    )
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    rule = Updater(net, net, sgd, scaler, CPU, "off", 0.3, accumulate)
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    cross_entropy, l1, _, _, norm = rule.step(images, labels, 0.0, 0.0, 8).tolist()

    seen: list[int] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(len(inputs[0]))

    handle = net.register_forward_pre_hook(look)
    loss, again = rule.probe(images, labels, 0.0)
    handle.remove()
    assert seen == [8 // accumulate] * accumulate
    assert loss == pytest.approx(cross_entropy + 0.3 * l1, rel=1e-5)
    assert again == pytest.approx(norm, rel=1e-4)
