"""train.tf32: both of PyTorch's switches, or none, and recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dgc.errors import RecipeError
from dgc.recipe.load import find_recipe, load_recipe
from dgc.run.files import read_json
from tests.unit.test_train_options import run_it


@pytest.fixture(autouse=True)
def switches_are_put_back() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(("key", "allowed"), [("", False), (", tf32: true", True)])
def test_both_switches_are_set_and_recorded(key: str, allowed: bool, tmp_path: Path) -> None:
    torch.backends.cudnn.allow_tf32 = not allowed
    torch.backends.cuda.matmul.allow_tf32 = not allowed
    run = run_it(tmp_path / "run", ("log_every: 3", f"log_every: 3{key}"))
    assert torch.backends.cudnn.allow_tf32 is allowed
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
    found = read_json(run.env)["determinism"]["tf32"]
    assert found == {"convolutions": allowed, "matrices": allowed}


def test_the_key_is_true_or_false_and_changes_what_a_recipe_computes() -> None:
    file = find_recipe("cifar10_h4")
    assert load_recipe(file, ["train.tf32=false"]).digest() == load_recipe(file).digest()
    assert load_recipe(file, ["train.tf32=true"]).digest() != load_recipe(file).digest()
    with pytest.raises(RecipeError, match=r"train\.tf32"):
        load_recipe(file, ["train.tf32=sometimes"])
