"""dgc.PruningSchedule: the trainer's schedule, step by step, with a state."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm.utils
import torch
import torch.optim.swa_utils
from torch import nn

import dgc
from dgc.errors import ArgumentError
from dgc.layers import gate_l1, iter_dgc, set_progress


def small() -> nn.Module:
    torch.manual_seed(0)
    return dgc.create_model("dydensenet", stages=(1, 1), growth=(8, 8), num_classes=4)


def test_each_step_prunes_as_set_progress_does_and_the_end_stays() -> None:
    model, other = small(), small()
    schedule = dgc.PruningSchedule(model, 50)
    seen = []
    for step in range(55):
        set_progress(other, min(step / 50, 1.0))
        wanted = [layer.n_inactive for _, layer in iter_dgc(other)]
        assert [layer.n_inactive for _, layer in iter_dgc(model)] == wanted
        assert schedule.inactive == sum(wanted)
        seen.append(schedule.inactive)
        schedule.step()
    assert seen == sorted(seen)
    assert seen[0] == 0 < seen[-1]
    assert schedule.progress == 1.0


def test_the_state_sets_what_is_switched_off() -> None:
    schedule = dgc.PruningSchedule(small(), 20, gate_l1=0.5)
    for _ in range(12):
        schedule.step()
    state = pickle.loads(pickle.dumps(schedule.state_dict()))
    again = dgc.PruningSchedule(small(), 20)
    again.load_state_dict(state)
    assert (again.inactive, again.progress) == (schedule.inactive, 0.6)
    assert again.gate_l1 == 0.5
    with pytest.raises(ArgumentError, match="over 20 steps, and this one is over 30"):
        dgc.PruningSchedule(small(), 30).load_state_dict(state)


def test_the_penalty_is_the_gates_l1_with_a_graph() -> None:
    model = small()
    schedule = dgc.PruningSchedule(model, 10, gate_l1=0.25)
    model(torch.randn(2, 3, 8, 8))
    penalty = schedule.penalty()
    assert penalty.item() == pytest.approx(0.25 * gate_l1(model).item())
    penalty.backward()
    gates = [layer.fc2_bias.grad for _, layer in iter_dgc(model)]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gates)
    assert copy.deepcopy(schedule.state_dict()) == schedule.state_dict()


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ArgumentError, match="has no dynamic layers"):
        dgc.PruningSchedule(nn.Linear(2, 2), 10)
    with pytest.raises(ArgumentError, match="steps=0"):
        dgc.PruningSchedule(small(), 0)
    with pytest.raises(ArgumentError, match="gate_l1=-1"):
        dgc.PruningSchedule(small(), 10, gate_l1=-1)


@pytest.mark.parametrize("library", ["torch", "timm"])
def test_a_model_that_weights_are_averaged_into_is_pruned_as_far(library: str) -> None:
    """Both libraries average buffers too: the number of inactive channels would become a
    fraction.
    """
    model = small()
    if library == "timm":
        average = timm.utils.ModelEmaV3(model, decay=0.9)
    else:
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
        )
    schedule = dgc.PruningSchedule(model, 20, averaged=[average.module])
    for _ in range(15):
        schedule.step()
        average.update(model) if library == "timm" else average.update_parameters(model)
    wanted = [layer.n_inactive for _, layer in iter_dgc(model)]
    assert [layer.n_inactive for _, layer in iter_dgc(average.module)] == wanted
    again = small()
    again.load_state_dict(average.module.state_dict())
    assert [layer.n_inactive for _, layer in iter_dgc(again)] == wanted
