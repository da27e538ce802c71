"""docs/recipes.md tells every key of a recipe, as the code has it; `recipes keys` prints the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dgc.recipe.load import flatten, load_recipe, recipes_dir
from dgc.recipe.meanings import MEANINGS, keys
from dgcctl.cli.main import main
from tests.contract.recipe_page import page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.contract.recipe_page"


def test_each_key_has_a_meaning_and_each_meaning_a_key() -> None:
    assert [key.name for key in keys() if not key.meaning] == []
    assert {key.name for key in keys()} == set(MEANINGS)
    flat = {name for name, _ in flatten(load_recipe(recipes_dir() / "demo.yaml"))}
    assert {name for name in MEANINGS if not name.startswith("model.convert")} <= flat


def test_keys_are_printed_by_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "keys", "warmup", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["keys"]
    assert [row["name"] for row in rows] == ["optim.warmup_epochs", "optim.warmup_lr"]
    assert main(["recipes", "keys", "warmup_epoch"]) == 0
    assert main(["recipes", "keys", "warmupp"]) == 2
    assert "no key has 'warmupp' in it" in capsys.readouterr().err
    # a word that no key has in it is looked for in values and meanings, however it is written
    for word, wanted in (
        ("adamw", {"optim.name", "optim.betas", "optim.eps"}),
        ("averaged", {"train.ema_decay"}),
        ("warm-up", {"optim.warmup_epochs", "optim.warmup_lr"}),
        ("Label smoothing", {"optim.label_smoothing"}),
    ):
        assert main(["recipes", "keys", word, "--json"]) == 0
        found = {row["name"] for row in json.loads(capsys.readouterr().out)["keys"]}
        assert wanted <= found
