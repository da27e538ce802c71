"""train.backend: how it is spelt, what it excludes, that a run trains with it or is refused in one
line.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dgc.errors import RecipeError, UsageError
from dgc.kernels.cpu import train_passes
from dgc.layers import iter_dgc
from dgc.recipe.load import Recipe, dump_recipe, find_recipe, load_recipe, parse_recipe
from dgc.train.build import build_model
from tests.unit.test_train_options import losses, run_it

CPU = torch.device("cpu")


def recipe(*overrides: str) -> Recipe:
    return load_recipe(find_recipe("cifar10_h4"), overrides)


def test_the_key_and_its_older_name() -> None:
    assert recipe().train.backend == "auto"
    assert recipe("train.method=plain").train.backend == "plain"
    assert recipe("train.method=plain", "train.backend=plain").train.backend == "plain"
    again = parse_recipe(dump_recipe(recipe("train.method=masked")), "recipe.yaml")
    assert again.train.backend == "masked"


def test_auto_is_what_recipes_meant_before_the_key_was_there() -> None:
    assert recipe("train.backend=auto").digest() == recipe().digest()
    assert recipe("train.backend=plain").digest() != recipe().digest()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("train.backend=fast",), "allowed: auto or native or plain or masked or triton"),
        (("train.method=fast",), "allowed: auto or native or plain or masked or triton"),
        (
            ("train.method=plain", "train.backend=masked"),
            "train.method is the older name of train.backend, and both are given: remove it",
        ),
        (
            ("train.backend=native", "train.amp=bf16"),
            "train.backend = native and train.amp = bf16 exclude each other: set backend = auto",
        ),
        (("train.method=native", "train.device=cuda"), "native and train.device = cuda exclude"),
        (("train.backend=native", "train.dtype=float64"), "and train.dtype = float64 exclude"),
        (("train.backend=native", "train.memory_format=channels_last"), "= channels_last exclude"),
        (("train.backend=native", "train.compile=true"), "and train.compile = true exclude"),
    ],
)
def test_what_cannot_be_is_one_line(overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(*overrides)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_every_layer_of_the_network_has_it() -> None:
    model = build_model(recipe("train.backend=masked"), CPU)
    assert {layer.backend for _, layer in iter_dgc(model)} == {"masked"}


def test_a_run_trains_with_it(tmp_path: Path) -> None:
    found = {
        backend: losses(run_it(tmp_path / backend, ("log_every: 3", f"log_every: 3, {text}")))
        for backend, text in (("auto", "method: auto"), ("masked", "backend: masked"))
    }
    assert found["masked"][:3] == pytest.approx(found["auto"][:3], abs=1e-4)
    assert found["masked"] != found["auto"], "another order of sums"


def test_what_is_not_there_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = (
        "name: fashion_mnist",
        f"name: cifar10, dir: {tmp_path / 'no data'}, download: false",
    )
    with pytest.raises(UsageError, match=r"train.backend = triton: .*: set train.backend = auto"):
        run_it(tmp_path / "a", nowhere, ("log_every: 3", "log_every: 3, backend: triton"))
    monkeypatch.setattr(train_passes, "available", lambda: False)
    with pytest.raises(UsageError, match=r"train.backend = native: the C\+\+ kernels are not"):
        run_it(tmp_path / "b", nowhere, ("log_every: 3", "log_every: 3, backend: native"))
