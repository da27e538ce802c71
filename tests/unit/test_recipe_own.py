"""Overrides that change the data set or the network take with them what the file says of the old
ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dgc.errors import RecipeError
from dgc.recipe import own_values
from dgc.recipe.load import Recipe, dump_recipe, find_recipe, load_recipe

OWN = ("data.name=image_folder", "data.dir=photos", "model.num_classes=3")


def demo(*overrides: str) -> Recipe:
    return load_recipe(find_recipe("demo"), overrides)


def test_own_images_are_not_judged_named_or_normalised_as_fashion_mnist() -> None:
    own = demo(*OWN)
    assert own.expect == ()
    assert own.title == "demo, changed: data.name = image_folder, model.num_classes = 3"
    assert own.tags == ("demo",)
    assert (own.data.mean, own.data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert own_values.notes(own.origin) == [
        (
            "expectation left out: it was made for data.name = fashion_mnist, and this run has"
            " image_folder; give expect=[...] to judge by one of your own"
        ),
        (
            "data.mean: not known for these images: ImageNet's [0.485, 0.456, 0.406] is used; "
            "data.mean=[...] gives another"
        ),
        (
            "data.std: not known for these images: ImageNet's [0.229, 0.224, 0.225] is used;"
            " data.std=[...] gives another"
        ),
    ]


def test_what_was_left_out_stands_in_the_runs_own_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(demo(*OWN)))
    again = load_recipe(path)
    assert again == demo(*OWN)
    assert again.origin["expect"].startswith("left out: it was made for data.name = fashion_mnist")


def test_what_somebody_gives_is_kept() -> None:
    wish = "expect=[{metric: top1_error, value: 5.0, tolerance: 1.0, source: ours}]"
    given = demo(*OWN, wish, "title=my photos", "data.mean=[0.5, 0.5, 0.5]", "tags=[fashion_mnist]")
    assert given.expect[0].value == 5.0
    assert (given.title, given.tags) == ("my photos", ("fashion_mnist",))
    assert given.data.mean == (0.5, 0.5, 0.5)
    assert [line[:8] for line in own_values.notes(given.origin)] == ["data.std"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.gate_factor=0.5", "model.gate_factor = 0.25, and this run has 0.5"),
        ("model.form=dense", "model.form = dgc, and this run has dense"),
        ("model.stages=[1,1,1]", "model.stages = [2, 2, 2], and this run has [1, 1, 1]"),
        ("model.heads=2", "model.heads = 4, and this run has 2"),
    ],
)
def test_an_expectation_holds_for_one_network(override: str, said: str) -> None:
    changed = demo(override)
    assert changed.expect == ()
    (line,) = own_values.notes(changed.origin)
    assert said in line
    assert changed.title.startswith("Fashion-MNIST (embedded subset")
    assert changed.data.mean == demo().data.mean


@pytest.mark.parametrize(
    "override",
    ["seed=3", "optim.lr=0.05", "train.epochs=2", "data.limit_train=100", "data.workers=2", "model.gate_factor=0.25",
     "model.bottleneck=4", "model.group_3x3=4", "model.stages=[2,2,2]", "data.name=fashion_mnist"],
)  # fmt: skip
def test_what_changes_neither_data_nor_network_is_judged_as_before(override: str) -> None:
    same = demo(override)
    assert (same.expect, same.title, same.tags) == (demo().expect, demo().title, demo().tags)
    assert own_values.notes(same.origin) == []


def test_a_known_set_at_another_place_is_the_same_set() -> None:
    found = load_recipe(find_recipe("imagenet_resnet18_h4"), ["data.dir=/big/imagenet"])
    assert found.expect == load_recipe(find_recipe("imagenet_resnet18_h4")).expect != ()


@pytest.mark.parametrize(
    ("folder", "kept"), [("photos", True), ("./photos", True), ("elsewhere", False)]
)
def test_a_recipe_for_one_image_folder_judges_that_folder(
    folder: str, kept: bool, tmp_path: Path
) -> None:
    wish = "expect=[{metric: top1_error, value: 5.0, tolerance: 1.0, source: ours}]"
    path = tmp_path / "mine.yaml"
    path.write_text(dump_recipe(demo(*OWN, wish)))
    assert bool(load_recipe(path, [f"data.dir={folder}"]).expect) is kept
    # names no folder: one has to be given
    path.write_text(dump_recipe(demo("data.name=image_folder", wish)))
    assert load_recipe(path, [f"data.dir={folder}"]).expect


@pytest.mark.parametrize("name", ["imagenet_resnet18_h4", "imagenet_condensenet_h4"])
def test_the_imagenet_recipes_take_few_classes(name: str) -> None:
    few = load_recipe(
        find_recipe(name), ["data.name=image_folder", "model.num_classes=2", "data.dir=photos"]
    )
    assert few.expect == ()
    wish = "expect=[{metric: top5_error, value: 5.0, tolerance: 1.0, source: ours}]"
    with pytest.raises(RecipeError, match=r"expect names top5_error, but model\.num_classes = 2"):
        load_recipe(find_recipe(name), ["data.name=image_folder", "model.num_classes=2", wish])


def test_other_known_sets_bring_their_own_mean_and_need_no_word() -> None:
    found = demo("data.name=cifar10")
    assert found.data.mean == load_recipe(find_recipe("cifar10_h4")).data.mean
    assert [line.split(":")[0] for line in own_values.notes(found.origin)] == [
        "expectation left out"
    ]
    for name in ("cifar10_h4", "cifar100_h4", "imagenet_resnet18_h4", "demo"):
        own = load_recipe(find_recipe(name)).data
        borrowed = load_recipe(find_recipe("cifar10_h4" if name != "cifar10_h4" else "cifar100_h4"), [
            f"data.name={own.name}", f"model.num_classes={ {'cifar100': 100, 'imagenet': 1000}.get(own.name, 10) }"
        ]).data  # fmt: skip
        assert (borrowed.mean, borrowed.std) == (own.mean, own.std)


def test_the_embedded_set_has_no_folder() -> None:
    with pytest.raises(RecipeError) as caught:
        demo('data.dir="/my photos"')
    assert caught.value.problems == [
        f"{find_recipe('demo')}: override 'data.dir=\"/my photos\"': data.dir = /my photos (or"
        " --data-dir), but data.name = fashion_mnist comes with the package and has no folder: did"
        " you mean data.name=image_folder?"
    ]


def test_a_quarantine_of_files_is_for_folders() -> None:
    with pytest.raises(RecipeError, match=r"data\.name = fashion_mnist is none: remove it"):
        demo("data.quarantine=bad.txt")
    assert demo(*OWN, "data.quarantine=bad.txt").data.quarantine == "bad.txt"


@pytest.mark.parametrize(
    "override", ["data=5", "model=null", "expect=3", "origin=7", "data.name=[1]", "tags=5"]
)
def test_nonsense_is_still_one_line_of_the_recipe(override: str) -> None:
    with pytest.raises(RecipeError):
        demo(override, "model.heads=2")
