"""train.memory_format: how it is spelt, what `auto` takes, where it is recorded, and that a run
keeps it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dgc.errors import RecipeError
from dgc.recipe.load import Recipe, find_recipe, load_recipe, parse_recipe
from dgc.run import checkpoint_store
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.train import memory_format, save, state
from dgc.train.build import build_model
from dgc.train.memory_format import choose
from tests.unit.test_train_options import run_it

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def recipe(*overrides: str, name: str = "cifar10_h4") -> Recipe:
    return load_recipe(find_recipe(name), overrides)


def test_the_older_spelling_is_read_as_what_it_meant() -> None:
    assert recipe().train.memory_format == "auto"
    assert recipe("train.channels_last=true").train.memory_format == "channels_last"
    assert recipe("train.channels_last=false").train.memory_format == "contiguous"


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ("train.channels_last=3",),
            "train.channels_last is no true or false: write train.memory_format",
        ),
        (("train.channels_last=true", "train.memory_format=auto"), "both are given: remove it"),
        (("train.memory_format=nhwc",), "allowed: auto or contiguous or channels_last"),
    ],
)
def test_what_cannot_be_read_is_one_line(overrides: tuple[str, ...], says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(*overrides)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_digest_of_older_recipes_is_what_it_was() -> None:
    """As computed when the key was `channels_last: false`, by the code before the change."""
    assert recipe("train.channels_last=false").digest() == OLD_DIGEST
    assert recipe("train.memory_format=contiguous").digest() == OLD_DIGEST
    assert (
        len(
            {
                recipe(f"train.memory_format={f}").digest()
                for f in ("auto", "contiguous", "channels_last")
            }
        )
        == 3
    )


OLD_DIGEST = "486435a08c0c8d8cf9c7cd37e23e417bd30b00bdd6c5140eb8dc5e0b24fbef72"


def test_auto_takes_what_was_measured_faster_and_else_stays_contiguous() -> None:
    assert choose(recipe("model.form=dense"), CPU) == "channels_last"
    assert choose(recipe(), CPU) == "contiguous"  # the kernels take nothing else
    assert choose(recipe("model.form=dense"), CUDA) == "contiguous"  # not measured
    assert choose(recipe("model.form=dense", "train.dtype=float64"), CPU) == "contiguous"
    assert choose(recipe("model.form=dense", "train.compile=true"), CPU) == "contiguous"
    assert choose(recipe("model.form=dense", "train.memory_format=contiguous"), CPU) == "contiguous"
    assert choose(recipe("train.memory_format=channels_last"), CPU) == "channels_last"
    assert choose(recipe("model.form=sgc"), CPU) == "channels_last"
    # not measured
    assert choose(recipe("model.form=sgc", name="imagenet_resnet18_h4"), CPU) == "contiguous"


def test_the_network_lies_in_the_format() -> None:
    weight = next(
        p for p in build_model(recipe("model.form=dense"), CPU).parameters() if p.dim() == 4
    )
    assert weight.is_contiguous(memory_format=torch.channels_last)
    weight = next(p for p in build_model(recipe(), CPU).parameters() if p.dim() == 4)
    assert weight.is_contiguous()


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return run_it(
        tmp_path_factory.mktemp("dense") / "run", ("stem: cifar", "stem: cifar, form: dense")
    )


def test_a_run_records_what_was_taken(dense: RunDir) -> None:
    assert read_json(dense.model)["memory_format"] == "channels_last"
    newest = checkpoint_store.newest_valid(dense)
    assert newest is not None
    assert state.decode_state(newest[1])[1]["stands_on"]["memory_format"] == "channels_last"


def test_a_run_keeps_its_format_when_the_table_changes(
    dense: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_format, "FASTER", {})
    own = load_recipe(dense.recipe)
    assert choose(own, CPU) == "contiguous"
    assert choose(own, CPU, dense) == "channels_last"


def test_a_run_from_before_the_key_goes_on_contiguous(dense: RunDir, tmp_path: Path) -> None:
    """Its recipe says `channels_last: false`, its model.json and its checkpoints say nothing."""
    text = dense.recipe.read_text().replace("log_every: 3", "log_every: 3, channels_last: false")
    old = RunDir(tmp_path)
    old.recipe.write_text(text)
    facts = read_json(dense.model)
    del facts["memory_format"]
    write_json(old.model, facts)
    assert "channels_last: false" in text
    assert choose(parse_recipe(text, "recipe.yaml"), CPU, old) == "contiguous"


def test_another_format_is_a_change_that_resume_asks_about() -> None:
    now = {"recipe": "", "memory_format": "contiguous"}
    base = dict.fromkeys(
        ("world_size", "torch", "device", "cpu_capability", "kernels", "data", "code"), "x" * 12
    )
    text = find_recipe("cifar10_h4").read_text()
    now |= base | {"packages": {}, "recipe": text}
    assert save.describe_changes(now | {"memory_format": "channels_last"}, now) == [
        "memory_format was channels_last, is contiguous"
    ]
    older = {key: value for key, value in now.items() if key != "memory_format"}
    assert save.describe_changes(older, now) == []
