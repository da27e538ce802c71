"""The update rules against torch's own classes, and what is treated apart in them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dgc
from dgc import schedule
from dgc.recipe.schema import OptimSection
from dgc.train.optimizers import kind_of, make_optimizer, own_decays
from dgc.train.ranks import Ranks
from dgc.train.step import Updater

CPU = Ranks(0, 1, 0, torch.device("cpu"))
DOUBLE = torch.float64
X = torch.randn(6, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
Y = torch.arange(6) % 3


def small() -> nn.Module:
    """In float64, and every gradient is a true one: that of a bias right before BatchNorm, or of a
    ReLU that a single sample passes, is rounding alone, of which adamw makes whole steps.
    """
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 3))
    return net.to(DOUBLE)


def rule(net: nn.Module, section: dict[str, Any], **more: Any) -> Updater:
    optim = OptimSection(lr=0.1, **section)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    guarded = make_optimizer(optim, net, torch.zeros(1))
    return Updater(net, net, guarded, scaler, CPU, "off", 0.0, 1, **more)


def torchs(net: nn.Module, section: dict[str, Any]) -> torch.optim.Optimizer:
    """torch's own class with the same numbers, its parameters in groups by hand."""
    apart = {
        name: section.get(f"{kind}_weight_decay", section["weight_decay"])
        for name, kind in (
            ("0.weight", "weight"), ("0.bias", "bias"), ("2.weight", "norm"), ("2.bias", "norm"),
            ("3.weight", "weight"), ("3.bias", "bias"),
        )
    }  # fmt: skip
    groups = [{"params": [p], "weight_decay": apart[name]} for name, p in net.named_parameters()]
    if section.get("name") == "adamw":
        return torch.optim.AdamW(groups, lr=0.1, betas=section["betas"], eps=section["eps"])
    if section.get("name") == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=0.1, alpha=section["alpha"], eps=section["eps"], momentum=section["momentum"]
        )
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)


RULES = {
    "sgd": {"weight_decay": 0.01},
    "sgd in groups": {"weight_decay": 0.01, "norm_weight_decay": 0.0, "bias_weight_decay": 0.5},
    "adamw": {"name": "adamw", "weight_decay": 0.05, "betas": (0.8, 0.95), "eps": 1e-6,
              "norm_weight_decay": 0.0},
    "rmsprop": {"name": "rmsprop", "weight_decay": 0.01, "alpha": 0.9, "eps": 1e-3, "momentum": 0.8,
                "bias_weight_decay": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", list(RULES))
def test_five_steps_are_those_of_torchs_own_class(name: str) -> None:
    section = RULES[name]
    ours, theirs = small(), small()
    updater, optimizer = rule(ours, section, label_smoothing=0.1), torchs(theirs, section)
    for _ in range(5):
        updater.step(X, Y, 0.1, 0.0, len(X))
        optimizer.zero_grad()
        F.cross_entropy(theirs(X), Y, label_smoothing=0.1).backward()
        assert all(p.grad.abs().min() > 1e-6 for p in theirs.parameters())  # type: ignore[union-attr]
        optimizer.step()
    for (key, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", list(RULES))
def test_nothing_moves_from_the_bad_step_on(name: str) -> None:
    updater = rule(small(), RULES[name])
    updater.step(X, Y, 0.1, 0.0, len(X))
    state = updater.optimizer.state

    def everything() -> list[Tensor]:
        kept = [t.clone() for values in state.values() for t in values.values()]
        return kept + [p.detach().clone() for p in updater.module.parameters()]

    before = everything()
    for batch in (X * torch.inf, X):
        updater.step(batch, Y, 0.1, 0.0, len(X))
    assert all(torch.equal(a, b) for a, b in zip(before, everything(), strict=True))


def test_the_norm_of_the_whole_gradient_is_clipped_and_reported_as_it_was() -> None:
    free, clipped = rule(small(), {}), rule(small(), {}, clip_grad_norm=0.05)
    whole = float(free.step(X, Y, 0.0, 0.0, len(X))[4])
    assert float(clipped.step(X, Y, 0.0, 0.0, len(X))[4]) == whole > 0.05
    wanted = copy.deepcopy(free.module)
    for p, q in zip(wanted.parameters(), free.module.parameters(), strict=True):
        p.grad = q.grad.clone() if q.grad is not None else None
    nn.utils.clip_grad_norm_(wanted.parameters(), 0.05)
    for p, q in zip(wanted.parameters(), clipped.module.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_what_is_a_gate_a_norm_a_bias() -> None:
    net = dgc.create_model("dydensenet", stages=(1, 1), growth=(8, 8), num_classes=4)
    kinds = {
        f"{path}.{name}".lstrip("."): kind_of(owner, name)
        for path, owner in net.named_modules()
        for name, _ in owner.named_parameters(recurse=False)
    }
    assert set(kinds.values()) == {"gate", "norm", "bias", "weight"}
    for name, kind in kinds.items():
        assert (kind == "gate") == (name.split(".")[-1] in ("fc1", "fc2", "fc2_bias")), name
    optim = OptimSection(lr=0.1, gate_weight_decay=0.0)
    assert set(own_decays(optim, net)) == {name for name, kind in kinds.items() if kind == "gate"}


def test_the_warm_up_rises_in_equal_steps_and_the_cosine_has_what_is_left() -> None:
    rising = [schedule.warmed_up(step, 4, 0.0, 0.2) for step in range(4)]
    assert rising == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert schedule.warmed_up(0, 4, 0.1, 0.2) == pytest.approx(0.125)
