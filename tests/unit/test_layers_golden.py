"""The layer computes what the released one computes: outputs, gate L1 and every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dgc.layers import DynamicGroupConv2d
from dgc.layers.backend import Backend
from dgc.models.released import from_released, to_released
from tests import golden

BACKENDS: list[Backend] = ["auto", "masked", "gathered"]


def build(case: dict[str, Any], backend: Backend, dtype: torch.dtype) -> DynamicGroupConv2d:
    numbers = {key: value for key, value in case["meta"].items() if key != "inactive_channels"}
    layer = DynamicGroupConv2d(**numbers, backend=backend)
    layer.load_state_dict(
        from_released({k[6:]: v for k, v in case.items() if k.startswith("state/")})
    )
    return layer.to(dtype)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest value; where all of theirs are zero, ours have to
    be.
    """
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)).item()


def run_training(layer: DynamicGroupConv2d, case: dict[str, Any]) -> dict[str, Tensor]:
    """Output, gate L1 and gradients, under the names of the case."""
    dtype = layer.weight.dtype
    x = case["x"].to(dtype).requires_grad_()
    out = layer.train()(x)
    ((out * case["train/grad_out"].to(dtype)).sum() + 0.1 * layer.gate_l1).backward()
    grads = to_released({key: parameter.grad for key, parameter in layer.named_parameters()})
    found = {"train/out": out, "train/lasso": layer.gate_l1, "train/grad_x": x.grad}
    return found | {f"train/grad/{key}": grad for key, grad in grads.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", golden.CASES)
def test_evaluation_repeats_the_released_layer(number: int, backend: Backend) -> None:
    case = golden.layer_case(number)
    layer = build(case, backend, torch.float32).eval()
    assert layer.n_inactive == case["meta"]["inactive_channels"]
    with torch.no_grad():
        assert difference(layer(case["x"]), case["eval/out"]) < 1e-5
    assert layer.gate_l1.item() == pytest.approx(case["eval/lasso"].item(), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", golden.CASES)
def test_training_repeats_the_released_layer_and_all_its_gradients(
    number: int, backend: Backend
) -> None:
    case = golden.layer_case(number)
    found = run_training(build(case, backend, torch.float32), case)
    wanted = {key for key in case if key.startswith("train/")} - {"train/grad_out"}
    assert set(found) == wanted
    assert difference(found["train/out"], case["train/out"]) < 1e-5
    worst = max((difference(found[key], case[key]), key) for key in sorted(wanted) if "grad" in key)
    assert worst[0] < 1e-4, worst[1]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("number", golden.CASES)
def test_every_way_agrees_with_the_oracle_in_double_precision(number: int, training: bool) -> None:
    case = golden.layer_case(number)
    for backend in BACKENDS[::2]:
        layers = [build(case, name, torch.float64) for name in (backend, "masked")]
        if training:
            ours, oracle = (run_training(layer, case) for layer in layers)
            assert max(difference(ours[key], oracle[key]) for key in oracle) < 1e-9
        else:
            with torch.no_grad():
                ours_y, oracle_y = (layer.eval()(case["x"].double()) for layer in layers)
            assert difference(ours_y, oracle_y) < 1e-9


def test_ties_are_switched_off_together_as_in_the_released_layer() -> None:
    case = golden.layer_case(6)
    layer = build(case, "auto", torch.float32).eval()
    with torch.no_grad():
        gates = layer.gates(torch.relu(layer.norm(case["x"])))  # type: ignore[misc]
    assert ((gates == 0).sum(-1) > layer.n_inactive).any(), (
        "the case is to hold ties at the threshold"
    )
    with torch.no_grad():
        assert difference(layer(case["x"]), case["eval/out"]) < 1e-5
