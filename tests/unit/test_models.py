"""The networks by name, in their three forms; traced whole; and the released training run step by
step.
"""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import dgc
from dgc.bench.peak_memory import saved_bytes
from dgc.errors import ArgumentError
from dgc.layers.backend import Backend
from dgc.models import create_model, list_models
from dgc.models.released import from_released
from dgc.schedule import cosine, progress
from tests import golden

SMALL = {
    "dydensenet": {"stages": (2, 1), "growth": (8, 16)},
    "dyresnet18": {"stem": "cifar", "num_classes": 10, "heads": 2},
}


def small(name: str, form: str = "dgc", p: float = 0.9) -> nn.Module:
    torch.manual_seed(0)
    model = create_model(name, form=form, **SMALL[name])
    dgc.set_progress(model, p)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 16, 16))  # running statistics that fit the weights
    return model


def test_the_four_released_names_are_among_the_models() -> None:
    assert {"dydensenet", "dyresnet18", *golden.released_keys()} == set(list_models())


ERRORS = [
    (
        "dydense",
        {},
        "unknown model 'dydense' (did you mean dydensenet?); known: dydensenet, dyresnet18, ",
    ),
    (
        "dydensenet",
        {"stage": 3},
        "dydensenet takes no argument 'stage'; it takes stages, growth, bottleneck, ",
    ),
    (
        "dydensenet",
        {"stages": (2, 2)},
        "stages=[2, 2] and growth=[8, 16, 32] must be of one length, at least 1",
    ),
    (
        "dydensenet",
        {"growth": (8, 16, 0)},
        "stages=[14, 14, 14] and growth=[8, 16, 0] must be integers >= 1",
    ),
    ("dydensenet", {"form": "sparse"}, "form='sparse': one of dgc, dense, sgc"),
    ("dyresnet18", {"stem": "mnist"}, "stem='mnist': one of cifar, imagenet"),
    ("dyresnet18", {"heads": 5}, "in_channels=64 is no multiple of heads=5"),
    ("dydensenet", {"group_3x3": 3}, "in_channels=32 is no multiple of groups=3"),
]


@pytest.mark.parametrize(
    ("name", "numbers", "line"), ERRORS, ids=[line[:40] for *_, line in ERRORS]
)
def test_a_network_that_cannot_be_is_refused_in_one_line(
    name: str, numbers: dict[str, object], line: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        create_model(name, **numbers)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["dgc", "dense", "sgc"])
@pytest.mark.parametrize("name", SMALL)
def test_torch_compile_takes_the_whole_network(name: str, form: str) -> None:
    """fullgraph=True raises at the first graph break or read of a value; gradients are those of the
    eager network.
    """
    model = small(name, form).double()
    x = torch.randn(2, 3, 16, 16).double()
    for training in (True, False):
        torch.compiler.reset()
        eager, traced = model.train(training), copy.deepcopy(model)
        compiled = torch.compile(traced, fullgraph=True, backend="eager")
        outputs = []
        for net, run in ((eager, eager), (traced, compiled)):
            net.zero_grad()
            outputs.append(run(x))
            (outputs[-1].square().sum() + dgc.gate_l1(net)).backward()
        torch.testing.assert_close(*outputs, rtol=1e-7, atol=1e-7)
        for ours, theirs in zip(traced.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(
                ours.grad, theirs.grad, rtol=1e-6, atol=1e-6 * theirs.grad.abs().max().item()
            )


def test_the_gradient_is_traced_too() -> None:
    torch.compiler.reset()
    net = nn.Sequential(
        dgc.DynamicGroupConv2d(16, 32), dgc.DynamicGroupConv2d(32, 8, 3, 1, 1)
    ).double()
    dgc.set_progress(net, 0.9)
    twin, x = copy.deepcopy(net), torch.randn(4, 16, 6, 6).double()
    for model, run in (
        (net, net),
        (twin, torch.compile(twin, fullgraph=True, backend="aot_eager")),
    ):
        (run(x).square().sum() + dgc.gate_l1(model)).backward()
    for ours, theirs in zip(twin.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dgc", "dense", "sgc"])
@pytest.mark.parametrize("name", [name for name in list_models() if name.endswith("_h4")])
def test_torch_compile_takes_every_released_network(name: str, form: str) -> None:
    """Traced through dynamo, in training and in evaluation."""
    model = create_model(name, form=form)
    dgc.set_progress(model, 0.9)
    size = 32 if "cifar" in name else 64
    for training in (True, False):
        torch.compiler.reset()
        compiled = torch.compile(model.train(training), fullgraph=True, backend="eager")
        assert compiled(torch.randn(2, 3, size, size)).shape[0] == 2


def test_a_compiled_network_follows_the_schedule_without_tracing_again() -> None:
    torch.compiler.reset()
    model = small("dydensenet", p=0.0)
    oracle = copy.deepcopy(model)
    for _, layer in dgc.iter_dgc(oracle):
        layer.backend = "masked"
    graphs = 0

    def counting(graph: torch.fx.GraphModule, _: object) -> torch.fx.GraphModule:
        nonlocal graphs
        graphs += 1
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=counting)
    x = torch.randn(2, 3, 16, 16)
    for step in range(40):
        for net in (model, oracle):
            dgc.set_progress(net, step / 40)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), oracle(x), rtol=1e-3, atol=1e-3)
    assert graphs <= 6


@pytest.mark.parametrize("name", SMALL)
def test_three_forms_have_one_skeleton(name: str) -> None:
    x = torch.randn(2, 3, 16, 16)
    forms = {form: small(name, form) for form in ("dgc", "dense", "sgc")}
    assert len({model(x).shape for model in forms.values()}) == 1
    assert not list(dgc.iter_dgc(forms["dense"]))
    assert not list(dgc.iter_dgc(forms["sgc"]))
    assert dgc.gate_l1(forms["dense"]).item() == 0


@pytest.mark.parametrize(
    ("name", "size", "limit"),
    [
        ("cifar10_dydensenet86_h4", 32, 0.6),
        ("imagenet_dyresnet18_h4", 224, 0.8),
        ("imagenet_dydensenet_h4", 224, 0.6),
    ],
)
def test_saved_activations_are_a_fraction_of_the_dense_twins(
    name: str, size: int, limit: float
) -> None:
    x = torch.randn(2, 3, size, size)
    model, twin = create_model(name), create_model(name, form="dense")
    for p in (0.0, 0.9):
        dgc.set_progress(model, p)
        assert saved_bytes(model, lambda: model(x)) <= limit * saved_bytes(twin, lambda: twin(x))


@pytest.mark.parametrize(
    ("backend", "steps"),
    [
        # all 60 of them: tests/unit/test_train_trace.py, by the training loop of the product
        ("auto", 20),
        pytest.param("auto", 60, marks=pytest.mark.slow),
        pytest.param("masked", 60, marks=pytest.mark.slow),
    ],
)
def test_one_training_run_repeats_the_released_one(backend: Backend, steps: int) -> None:
    """The steps in float64, to 1e-8 in every figure of every step."""
    run = golden.trace()
    model = create_model("dydensenet", stages=(2, 2, 2))
    init = {
        key[5:]: torch.from_numpy(value) for key, value in run.items() if key.startswith("init/")
    }
    init = {
        key: value.float() if value.is_floating_point() else value for key, value in init.items()
    }
    model.load_state_dict(from_released(init, model))
    model.double().train()
    for _, layer in dgc.iter_dgc(model):
        layer.backend = backend
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=1e-4, nesterov=True)
    images, labels = golden.fashion_images(320)
    for step, row in enumerate(run["rows"][:steps]):
        p = progress(step // 10, step % 10, 6, 10)
        optimizer.param_groups[0]["lr"] = cosine(p, 0.1)
        dgc.set_progress(model, p)
        batch = slice(32 * (step % 10), 32 * (step % 10 + 1))
        entropy = F.cross_entropy(model(images[batch]), labels[batch])
        lasso = dgc.gate_l1(model)
        off = sum(layer.n_inactive for _, layer in dgc.iter_dgc(model))
        found = [p, cosine(p, 0.1), entropy.item(), lasso.item(), off]
        assert found == pytest.approx(row.tolist(), rel=1e-8, abs=1e-8), (
            f"step {step}, {run['columns'].tolist()}"
        )
        optimizer.zero_grad()
        (entropy + 1e-5 * lasso).backward()
        optimizer.step()
