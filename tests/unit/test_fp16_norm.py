"""The gradient norm of a step in fp16 is the gradient's own, not that of the scaled one."""

from __future__ import annotations

import pytest
import torch

import dgc
from dgc.train.optimizers import GuardedSGD
from dgc.train.ranks import Ranks
from dgc.train.step import Updater

CPU = Ranks(0, 1, 0, torch.device("cpu"))


def norm_of_a_step(amp: str) -> float:
    torch.manual_seed(0)
    net = dgc.create_model("dydensenet", stages=(1, 1), growth=(8, 8), num_classes=4).train()
    sgd = GuardedSGD(
        net.named_parameters(), torch.zeros(1), momentum=0.9, weight_decay=0.0, nesterov=False
    )
    scaler = torch.amp.GradScaler("cpu", enabled=amp == "fp16", init_scale=1024.0)
    rule = Updater(net, net, sgd, scaler, CPU, amp, 1e-5, 1)
    row = rule.step(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]), 0.1, 0.0, 4)
    return float(row[4])


def test_the_norm_is_that_of_the_gradient_itself() -> None:
    assert norm_of_a_step("fp16") == pytest.approx(norm_of_a_step("off"), rel=0.05)
