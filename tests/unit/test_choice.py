"""How many channels each layer keeps: shares by name, in a recipe, tried layer by layer, and a budget
shared among the layers.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dgc
from dgc.choice import by_layer, knapsack, milliseconds
from dgc.choice.knapsack import Option
from dgc.errors import ArgumentError, RecipeError
from dgc.hub.recorded_networks import document, fresh, recorded
from dgc.kernels.cpu import available
from dgc.layers import macs
from dgc.recipe.load import dump_recipe, find_recipe, load_recipe, parse_recipe


class TwoPaths(nn.Module):
    """One layer whose output counts, and one whose output does not."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1))
        self.idle = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.used(x) + 0 * self.idle(x)
        answer: Tensor = self.head(y.mean((2, 3)))
        return answer


def two_paths() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, images = TwoPaths().eval(), torch.randn(96, 32, 6, 6)
    dgc.convert(model, images[:1])
    return model, images


def state(model: nn.Module) -> dict[str, tuple[float, int, int]]:
    return {n: (m.gate_factor, m.n_inactive, m.n_traced) for n, m in dgc.iter_dgc(model)}


# --- shares by name -------------------------------------------------------------------------------


def test_the_longest_name_counts_whatever_the_order() -> None:
    factors = {"*": 0.25, "features.denseblock_2": 0.5, "features.*.denselayer_1.conv_1": 1}
    for order in itertools.permutations(factors.items()):
        model = dgc.create_model("dydensenet", stages=[2, 2], growth=[8, 16])
        dgc.set_gate_factors(model, dict(order))
        assert [layer.gate_factor for _, layer in dgc.iter_dgc(model)] == [1, 0.25, 1, 0.5]
    dgc.set_progress(model, 1.0)
    kept = {name: layer.in_channels - layer.n_inactive for name, layer in dgc.iter_dgc(model)}
    assert list(kept.values()) == [16, 6, 32, 24]


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ({"layer1": 0.5, "layer9": 0.5}, "'layer9' means no dynamic layer; near it are layer4"),
        ({"layer1": 0}, "'layer1': 0 is no share of channels: 0 < share <= 1"),
        ({"layer1": True}, "True is no share"),
        ({"layer1": "0.5"}, "'0.5' is no share"),
        ({"layer1": 0.001}, "0.001 keeps no channel of 64"),
    ],
)
def test_a_share_that_cannot_be_changes_nothing(factors: dict[str, Any], said: str) -> None:
    model = dgc.create_model("dyresnet18", num_classes=10, stem="cifar")
    before = state(model)
    with pytest.raises(ArgumentError, match=said):
        dgc.set_gate_factors(model, {"layer2": 0.5, **factors})
    assert state(model) == before


def test_a_network_without_dynamic_layers_says_so() -> None:
    with pytest.raises(ArgumentError, match="the network has none: convert it first"):
        dgc.set_gate_factors(nn.Sequential(nn.Conv2d(16, 16, 1)), {"*": 0.5})


# --- in a recipe ----------------------------------------------------------------------------------

GIVEN = "model.gate_factors={features.denseblock_1: 0.5, features.denseblock_3: 1.0}"


def test_a_recipe_gives_layers_their_own_share() -> None:
    plain, recipe = load_recipe(find_recipe("demo")), load_recipe(find_recipe("demo"), [GIVEN])
    assert "gate_factors" not in dump_recipe(plain)
    assert parse_recipe(dump_recipe(recipe), "again") == recipe
    assert recipe.digest() != plain.digest()
    model = fresh(recipe).model
    shares = [layer.gate_factor for _, layer in dgc.iter_dgc(model)]
    assert shares == [0.5, 0.5, 0.25, 0.25, 1.0, 1.0]
    again = recorded(recipe, document(model, recipe))
    assert [layer.gate_factor for _, layer in dgc.iter_dgc(again)] == shares
    found, usual = (macs.count(m, 32).promised for m in (model, fresh(plain).model))
    assert found > usual


def test_a_dense_twin_of_such_a_recipe_is_the_dense_network() -> None:
    twin = fresh(load_recipe(find_recipe("demo"), [GIVEN, "model.form=dense"])).model
    assert not list(dgc.iter_dgc(twin))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.gate_factors={x: 2}", "allowed: a mapping of names to numbers > 0 and <= 1"),
        ("model.form=sgc", "model.gate_factors is there for form dgc"),
        ("model={name: torchvision/resnet18, num_classes: 10, gate_factors: {layer1: 0.5}}",
         "write model.convert.layers: {LAYER: {gate_factor: ...}}"),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_say_is_told(override: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(find_recipe("demo"), [GIVEN, override])
    assert said in str(caught.value)


def test_a_name_that_means_nothing_is_told_when_the_network_is_made() -> None:
    recipe = load_recipe(find_recipe("demo"), ["model.gate_factors={features.denseblok_1: 0.5}"])
    with pytest.raises(ArgumentError, match=r"^gate_factors: .*near it are features.denseblock_1"):
        fresh(recipe)


# --- layer by layer -------------------------------------------------------------------------------


def test_one_layer_at_a_time_and_all_as_before_afterwards() -> None:
    model, _ = two_paths()
    dgc.set_progress(model, 0.6)
    before = state(model)
    seen = list(by_layer(model, (0.75, 0.25), lambda: state(model)))
    assert [(name, share) for name, share, _ in seen] == [
        ("used.0", 0.25), ("used.0", 0.75), ("idle.0", 0.25), ("idle.0", 0.75),
    ]  # fmt: skip
    for name, share, during in seen:
        assert during[name][1] == round(32 * (1 - share))
        assert {k: v for k, v in during.items() if k != name} == {
            k: v for k, v in before.items() if k != name
        }
    assert state(model) == before
    with pytest.raises(ZeroDivisionError):
        list(by_layer(model, (0.5,), lambda: 1 // 0))
    assert state(model) == before


# --- the budget -----------------------------------------------------------------------------------


def test_options_are_chosen_as_by_trying_all() -> None:
    """With damages that fall ever more slowly and steps of one cost the best choice is found."""
    for seed in range(30):
        dice = random.Random(seed)
        items = []
        for _ in range(3):
            steps = sorted((dice.random() for _ in range(4)), reverse=True)
            damages = [sum(steps[at:]) for at in range(5)]
            items.append([Option(float(at), damage) for at, damage in enumerate(damages)])
        budget = dice.randint(0, 12)
        taken = knapsack.choose(items, budget)
        assert taken is not None
        options = [item[at] for item, at in zip(items, taken, strict=True)]
        assert sum(option.cost for option in options) <= budget
        best = min(
            sum(option.damage for option in choice)
            for choice in itertools.product(*items)
            if sum(option.cost for option in choice) <= budget
        )
        assert sum(option.damage for option in options) == pytest.approx(best)


def test_an_option_that_costs_more_and_does_more_harm_is_never_taken() -> None:
    options = [Option(1, 5.0), Option(2, 7.0), Option(3, 4.0), Option(4, 4.5), Option(5, 0.0)]
    assert [knapsack.choose([options], b) for b in (0.5, 2, 3, 4.9, 5, 99)] == [
        None, [0], [2], [2], [4], [4],
    ]  # fmt: skip


def test_channels_go_where_they_matter() -> None:
    model, images = two_paths()
    before = state(model)
    dgc.set_progress(twin := two_paths()[0], 1.0)
    half = macs.count(twin, (6, 6), 32).executed
    found = dgc.allocate(model, images, half)
    assert state(model) == before
    assert found.gate_factors["idle.0"] == 0.125
    assert found.gate_factors["used.0"] > 0.5
    assert found.one_for_all == 0.5
    assert found.damage_one_for_all is not None
    assert found.damage < found.damage_one_for_all
    dgc.set_gate_factors(model, found.gate_factors)
    dgc.set_progress(model, 1.0)
    assert macs.count(model, (6, 6), 32).executed == pytest.approx(found.cost, abs=1)
    assert found.cost <= half
    assert str(found).splitlines()[1].startswith("used.0")
    assert found.convert_layers["idle.0"] == {"gate_factor": 0.125}
    again = TwoPaths()
    dgc.convert(again, images[:1], layers=found.convert_layers)
    assert {n: m.gate_factor for n, m in dgc.iter_dgc(again)} == found.gate_factors


def test_with_labels_damage_is_what_the_loss_grows_by() -> None:
    model, images = two_paths()
    labels = model(images).argmax(1)
    found = dgc.allocate(model, images, 1e9, labels=labels, shares=(0.25, 1.0))
    (used, idle) = found.layers
    assert idle.damages == pytest.approx((0, 0), abs=1e-6)
    assert used.damages[0] > 0
    with torch.no_grad():
        first = nn.functional.cross_entropy(model(images), labels).item()
        next(layer for _, layer in dgc.iter_dgc(model)).set_inactive(24)
        second = nn.functional.cross_entropy(model(images), labels).item()
    assert used.damages[0] == pytest.approx(second - first, abs=1e-5)


@pytest.mark.skipif(not available(), reason="the kernels were not built: no C++ compiler")
def test_milliseconds_are_a_budget_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milliseconds, "SECONDS", 0.0)
    monkeypatch.setattr(milliseconds, "ROUNDS", 1)
    model, images = two_paths()
    found = dgc.allocate(model, images[:8], 1e6, unit="ms", shares=(0.5, 1.0))
    assert found.gate_factors["used.0"] == 1.0
    assert 0 < found.cost < 1e6
    assert all(cost > 0 for layer in found.layers for cost in layer.costs)
    with pytest.raises(ArgumentError, match=r"with 50.0% kept in every layer the network takes"):
        dgc.allocate(model, images[:8], 1e-9, unit="ms", shares=(0.5, 1.0))


def test_a_layer_that_costs_more_in_the_whole_is_shared_again_with_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole network takes 3 ms more than its layers alone while one of them keeps all."""
    monkeypatch.setattr(milliseconds, "require_kernels", lambda images: None)
    monkeypatch.setattr(milliseconds, "layer", lambda one, inputs, shares: [10 * s for s in shares])

    def whole(model: nn.Module, image: Tensor) -> float:
        kept = [1 - layer.n_inactive / layer.in_channels for _, layer in dgc.iter_dgc(model)]
        return 10 * sum(kept) + (3 if 1 in kept else 0)

    monkeypatch.setattr(milliseconds, "network", whole)
    model, images = two_paths()
    found = dgc.allocate(model, images, 12.0, unit="ms", shares=(0.125, 0.5, 0.75, 1.0))
    assert found.gate_factors == {"used.0": 0.75, "idle.0": 0.125}
    assert found.cost == 8.75


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"budget": 10.0}, "with 12.5% kept in every layer the network takes"),
        ({"budget": 0}, "budget=0 must be more than 0"),
        ({"unit": "flops"}, "unit='flops': one of macs, ms"),
        ({"images": torch.zeros(3, 6, 6)}, r"must be \(N, C, H, W\)"),
        ({"labels": torch.zeros(3)}, r"96 images and labels of shape \(3,\)"),
        ({"shares": (0.5, 1.5)}, "1.5 is no share of channels"),
        ({"shares": (0.01,)}, "keeps no channel of a layer that has 32"),
        ({"shares": ()}, "no share of channels was given"),
        ({"model": TwoPaths()}, "TwoPaths has no dynamic layers: convert it first"),
    ],
)
def test_what_cannot_be_allocated_is_told(change: dict[str, Any], said: str) -> None:
    model, images = two_paths()
    before = state(model)
    given = {"model": model, "images": images, "budget": 1e9, **change}
    with pytest.raises(ArgumentError, match=said):
        dgc.allocate(**given)
    assert state(model) == before


def test_the_page_shows_what_happens() -> None:
    page = (Path(__file__).parents[2] / "docs/own-network.md").read_text(encoding="utf-8")
    (code,) = [
        text for text in page.split("```python\n") if "dgc.allocate(" in text.split("```")[0]
    ]
    seen: dict[str, Any] = {}
    exec(code.partition("```")[0], seen)
    found = seen["found"]
    assert found.cost <= 20e6
    assert {n: m.gate_factor for n, m in dgc.iter_dgc(seen["model"])} == found.gate_factors


def test_a_report_is_plain_data() -> None:
    model, images = two_paths()
    found = dgc.allocate(model, images, 1e9)
    told = found.as_dict()
    assert told["layers"][0]["name"] == "used.0"
    assert "in every layer" not in str(replace(found, one_for_all=None))
