"""train.backend: how it is spelt, what it excludes, that a run trains with it or is refused in one
line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dgc.errors import OlderNameWarning, RecipeError, UsageError
from dgc.kernels.cpu import train_passes
from dgc.layers import iter_dgc
from dgc.recipe.load import Recipe, dump_recipe, find_recipe, load_recipe, parse_recipe
from dgc.recipe.schema import OLDER_KEYS
from dgc.train.build import build_model
from tests.unit.test_train_options import losses, run_it
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def recipe(*overrides: str) -> Recipe:
    return load_recipe(find_recipe("cifar10_h4"), overrides)


def test_the_key_and_its_older_name() -> None:
    assert recipe().train.backend == "auto"
    assert recipe("train.method=plain").train.backend == "plain"
    assert recipe("train.method=plain", "train.backend=plain").train.backend == "plain"
    again = parse_recipe(dump_recipe(recipe("train.method=masked")), "recipe.yaml")
    assert again.train.backend == "masked"


def test_an_older_key_is_said_once_to_whoever_wrote_it(tmp_path: Path) -> None:
    """In a file and on the command line; of what a run recorded nothing is said."""
    file = tmp_path / "recipe.yaml"
    written = dump_recipe(recipe()).replace("backend: auto", "method: plain")
    file.write_text(written)
    told = "train.method is the older name of train.backend: write that; from dgcctl 0.3 on it is"
    with pytest.warns(OlderNameWarning, match=rf"recipe\.yaml: {re.escape(told)} unknown$"):
        assert load_recipe(file).train.backend == "plain"
    wanted = r"^train\.channels_last is the older name of train\.memory_format"
    with pytest.warns(OlderNameWarning, match=wanted):
        assert recipe("train.channels_last=true").train.memory_format == "channels_last"
    (tmp_path / "status.json").write_text("{}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_recipe(file).train.backend == "plain"
        assert recipe("train.backend=plain").train.backend == "plain"
    with pytest.warns(OlderNameWarning):
        load_recipe(file, ["train.method=masked"])


def test_every_older_key_is_read_and_warned_of() -> None:
    values = {"channels_last": "true", "method": "plain"}
    assert OLDER_KEYS.keys() == values.keys()
    for old, new in OLDER_KEYS.items():
        with pytest.warns(OlderNameWarning, match=f"train.{old} is the older name of train.{new}"):
            found = recipe(f"train.{old}={values[old]}")
        assert getattr(found.train, new) != getattr(recipe().train, new)


def test_the_command_line_says_it_on_one_line(tmp_path: Path) -> None:
    words = ["train", "demo", "train.method=plain", "--dry-run", "--runs-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "dgcctl", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD,
    )
    assert done.returncode == 0, done.stderr
    assert "backend: plain" in done.stdout
    said = [line for line in done.stderr.splitlines() if "older name" in line]
    assert said == [
        "warning: train.method is the older name of train.backend: write that; from dgcctl 0.3 on it"
        " is unknown"
    ]


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
