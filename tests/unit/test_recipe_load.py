"""Recipes: what is read, what is written out, what changes the digest, what the shipped ones hold."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dgc.errors import RecipeError
from dgc.recipe import yaml12
from dgc.recipe.dump import dump_tree
from dgc.recipe.load import (
    check_world_size,
    diff_recipes,
    dump_recipe,
    find_recipe,
    flatten,
    load_recipe,
    parse_recipe,
    recipes_dir,
    shipped_recipes,
)

SHIPPED = ["cifar100_h4", "cifar10_h4", "demo", "imagenet_condensenet_h4", "imagenet_resnet18_h4"]


def test_shipped_recipes_are_there():
    assert set(SHIPPED) <= set(shipped_recipes())


@pytest.mark.parametrize("name", shipped_recipes())
def test_round_trip_of_every_shipped_recipe_is_identical(name):
    recipe = load_recipe(find_recipe(name))
    text = dump_recipe(recipe)
    again = parse_recipe(text, "dumped.yaml")
    assert again == recipe
    assert dump_recipe(again) == text
    assert again.digest() == recipe.digest()


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_reader_of_yaml_1_1_takes_the_resolved_recipe_for_the_same(name):
    recipe = load_recipe(find_recipe(name))
    theirs = yaml.safe_load(dump_recipe(recipe))
    assert theirs["optim"]["gate_l1"] == recipe.optim.gate_l1
    assert theirs["train"]["amp"] == "off"
    assert {key: theirs["train"][key] for key in theirs["train"]} == recipe.train.model_dump()


PAPER = {
    "cifar10_h4": (10, 300, 64, 0.25, {"top1_error": 4.77}),
    "cifar100_h4": (100, 300, 64, 0.25, {"top1_error": 23.41}),
    "imagenet_condensenet_h4": (1000, 120, 256, 0.25, {"top1_error": 25.4, "top5_error": 7.8}),
    "imagenet_resnet18_h4": (1000, 120, 256, 0.45, {"top1_error": 31.22, "top5_error": 11.38}),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_recipes(name):
    recipe = load_recipe(find_recipe(name))
    classes, epochs, batch, kept, errors = PAPER[name]
    assert (recipe.source, recipe.model.heads, recipe.model.squeeze_rate) == ("paper", 4, 16)
    assert (recipe.model.num_classes, recipe.train.epochs, recipe.train.batch_size) == (
        classes,
        epochs,
        batch,
    )
    assert recipe.model.gate_factor == kept
    optim = recipe.optim
    assert (optim.lr, optim.momentum, optim.nesterov, optim.weight_decay) == (0.1, 0.9, True, 1e-4)
    assert (optim.schedule, optim.gate_l1) == ("cosine", 1e-5)
    assert {item.metric: item.value for item in recipe.expect} == errors


def test_networks_and_images_of_the_papers_recipes():
    by_name = {name: load_recipe(find_recipe(name)) for name in PAPER}
    for name in ("cifar10_h4", "cifar100_h4"):
        model, data = by_name[name].model, by_name[name].data
        assert (model.stages, model.growth, model.bottleneck, model.group_3x3) == (
            (14, 14, 14),
            (8, 16, 32),
            4,
            4,
        )
        assert (data.augment, data.image_size, data.crop_padding) == ("crop_flip", 32, 4)
    condensenet = by_name["imagenet_condensenet_h4"].model
    assert (condensenet.stages, condensenet.growth) == ((4, 6, 8, 10, 8), (8, 16, 32, 64, 128))
    for name in ("imagenet_condensenet_h4", "imagenet_resnet18_h4"):
        data = by_name[name].data
        assert (data.augment, data.image_size, data.resize) == ("resized_crop_flip", 224, 256)
        assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert by_name["cifar10_h4"].data.mean == (0.4914, 0.4824, 0.4467)
    assert by_name["cifar10_h4"].data.std == (0.2471, 0.2435, 0.2616)
    assert by_name["cifar100_h4"].data.mean == (0.5071, 0.4867, 0.4408)
    assert by_name["cifar100_h4"].data.std == (0.2675, 0.2565, 0.2761)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_hyper_parameter_has_an_origin(name):
    recipe = load_recipe(find_recipe(name))
    wanted = (
        "model.heads",
        "model.gate_factor",
        "optim.lr",
        "optim.momentum",
        "optim.weight_decay",
        "optim.schedule",
    )
    for key in (*wanted, "optim.gate_l1", "train.epochs", "train.batch_size"):
        assert recipe.origin[key].split(":")[0] in ("paper", "released code", "ours"), key
    for item in recipe.expect:
        assert item.source


def test_the_model_section_is_what_create_model_takes():
    dydensenet = load_recipe(find_recipe("cifar10_h4")).model.kwargs()
    assert dydensenet["stages"] == [14, 14, 14]
    assert "name" not in dydensenet
    resnet = load_recipe(find_recipe("imagenet_resnet18_h4")).model.kwargs()
    assert set(resnet) == {"form", "stem", "num_classes", "heads", "squeeze_rate", "gate_factor"}


# --- overrides and digest -------------------------------------------------------------------------


def demo(*overrides):
    return load_recipe(find_recipe("demo"), overrides)


def test_overrides_are_read_like_the_file():
    recipe = demo(
        "optim.lr=5e-2",
        "model.stages=[1, 1]",
        "model.growth=[8,16]",
        "seed=010",
        "title=no",
        "tags=[a]",
    )
    assert recipe.optim.lr == 0.05
    assert (recipe.model.stages, recipe.model.growth) == ((1, 1), (8, 16))
    assert (recipe.seed, recipe.title, recipe.tags) == (10, "no", ("a",))


def test_an_overridden_value_is_no_longer_the_papers():
    assert demo().origin["optim.lr"] == "paper"
    assert demo("optim.lr=0.05").origin["optim.lr"] == "given on the command line"


def test_a_whole_section_can_be_overridden():
    recipe = demo("checkpoint={keep_last: 5}")
    assert (recipe.checkpoint.keep_last, recipe.checkpoint.every_seconds) == (5, 600)


@pytest.mark.parametrize(
    "override", ["optim.lr=0.05", "seed=1", "data.limit_train=640", "train.amp=bf16"]
)
def test_what_is_computed_changes_the_digest(override):
    assert demo(override).digest() != demo().digest()


@pytest.mark.parametrize(
    "override",
    ["title=x", "data.workers=7", "train.log_every=1", "checkpoint.keep_last=9", "tags=[x]"],
)
def test_labels_places_and_intervals_do_not(override):
    assert demo(override).digest() == demo().digest()
    assert demo(override) != demo()


def test_a_place_does_not():
    cifar = find_recipe("cifar10_h4")
    assert load_recipe(cifar, ["data.dir=/x"]).digest() == load_recipe(cifar).digest()


def test_diff_names_the_keys():
    first, second = demo(), demo("optim.lr=0.05", "data.workers=2")
    assert [row for row in diff_recipes(first, second) if row[0] != "origin"] == [
        ("data.workers", 0, 2),
        ("optim.lr", 0.1, 0.05),
    ]
    assert diff_recipes(first, second, semantic=True) == [("optim.lr", 0.1, 0.05)]
    assert diff_recipes(first, first) == []


def test_a_recipe_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        demo().optim.lr = 1.0


# --- finding --------------------------------------------------------------------------------------


def test_find_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("demo") == recipes_dir() / "demo.yaml"
    assert find_recipe("recipes/demo.yaml") == recipes_dir() / "demo.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text(find_recipe("demo").read_text())
    assert find_recipe("mine.yaml") == Path("mine.yaml")


def test_a_missing_recipe_is_told_with_the_nearest_name():
    with pytest.raises(
        RecipeError, match=r"^cifar10_h: no such recipe file \(did you mean cifar10_h4\?\)$"
    ):
        find_recipe("cifar10_h")
    with pytest.raises(RecipeError, match="shipped recipes: cifar100_h4, "):
        find_recipe("/no/such/zzz.yaml")


def test_world_size():
    check_world_size(demo(), 4)
    with pytest.raises(
        RecipeError, match=r"train.batch_size = 64 cannot be shared by 3 processes .* multiple of 3"
    ):
        check_world_size(demo(), 3)


# --- YAML 1.2 and dumping -------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.dictionaries(
    st.text(min_size=1), scalars | st.lists(scalars).map(tuple), min_size=1, max_size=6
)


@given(tree=trees)
def test_whatever_is_dumped_loads_back_identical(tree):
    document = yaml12.load(dump_tree(tree), "x")
    assert document.problems == []
    assert document.tree == tree
    # 1 and True and 1.0 are equal in Python, but not in a recipe
    assert str(document.tree) == str(tree)


def test_lines_are_remembered():
    document = yaml12.load("a:\n  b: 1\n\n  c: [1,\n    2]\n", "x")
    assert [
        document.line(loc) for loc in (("a",), ("a", "b"), ("a", "c"), ("a", "c", 1), ("a", "zz"))
    ] == [
        1,
        2,
        4,
        5,
        1,
    ]


def test_special_floats():
    tree = yaml12.load("[.inf, -.inf, .nan, 1., .5, 1e3]", "x").tree
    assert tree[:2] == (math.inf, -math.inf)
    assert math.isnan(tree[2])
    assert tree[3:] == (1.0, 0.5, 1000.0)


def test_every_key_of_the_flat_form_is_dotted_once():
    keys = [key for key, _ in flatten(demo())]
    assert len(keys) == len(set(keys)) > 50
    assert {"model.heads", "seed", "expect", "origin"} <= set(keys)
