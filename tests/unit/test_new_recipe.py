"""`dgcctl recipes new`: a recipe for a folder of images, whose facts are measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgc.data import folder as listing
from dgc.data.rng import subset
from dgc.jobs import measure_images
from dgc.recipe.load import load_recipe
from dgcctl.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of one colour each, images of 60 x 45, in the working directory."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "my pets!"
    for split, count in (("train", 6), ("val", 2)):
        for name, colour in (("cat", (255, 0, 51)), ("it's", (0, 0, 51))):
            place = root / split / name
            place.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (60, 45), colour).save(place / f"{index}.png")
    return root


def test_it_measures_classes_size_mean_and_deviation(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recipes", "new", "--data-dir", str(folder)]
    assert main.main([*words, "--model", "torchvision/resnet18"]) == 0
    assert capsys.readouterr().out == "my-pets.yaml\n"
    recipe = load_recipe(tmp_path / "my-pets.yaml")
    assert (recipe.model.name, recipe.model.num_classes) == ("torchvision/resnet18", 2)
    assert (recipe.data.image_size, recipe.data.dir) == (32, str(folder))
    assert recipe.data.mean == pytest.approx(np.array([0.5, 0, 0.2]), abs=1e-4)
    assert recipe.data.std[0] == pytest.approx(0.5, abs=1e-4)
    assert main.main([*words, "--model", "dydensenet", "-o", "other.yaml"]) == 0
    assert load_recipe(tmp_path / "other.yaml").model.stem == "cifar"


def test_a_folder_is_listed_once_and_its_images_are_taken_from_all_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(6):  # the second class alone has large images
        Image.new("RGB", (200, 170), (0, 0, 51)).save(folder / "train" / "it's" / f"{index}.png")
    scan, scanned = listing.scan, []
    monkeypatch.setattr(listing, "scan", lambda *given: scanned.append(given[1]) or scan(*given))
    monkeypatch.setattr(measure_images, "SAMPLES", 6)
    monkeypatch.setattr(measure_images, "SIDES", 3)
    found = measure_images.measure(folder)
    assert scanned == ["train", "val"]
    assert (found["train"], found["val"], found["measured"]) == (12, 4, 6)
    few = subset(12, 6)[::2]
    assert found["side"] == np.median([45 if index < 6 else 170 for index in few])
    assert found["mean"][1] == 0


def test_the_command_that_follows_can_be_typed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recipes", "new", "--data-dir", str(folder), "-o", "my pets.yaml"]
    assert main.main([*words, "--model", "python:mynets.nets:build"]) == 0
    assert capsys.readouterr().err.endswith(": `dgcctl train 'my pets.yaml' --trust-code mynets`\n")


def test_what_is_refused_is_one_line_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recipes", "new", "--data-dir", str(folder)]
    for given, code, said in (
        ([*words, "--model", "resnet18"], 2, 'model.name is "resnet18" (a text); allowed: dydense'),
        ([*words, "-o", "gone/x.yaml"], 2, "there is no folder gone: make it first"),
        ([*words, "-o", "my pets!", "--yes"], 2, "my pets!: is a folder: name a file in it"),
        ([*words[:-1], str(tmp_path / "nowhere")], 3, "no such folder for image_folder"),
    ):
        assert main.main(given) == code
        error = capsys.readouterr().err
        assert said in error
        assert error.startswith("error: ")
    assert not list(tmp_path.glob("**/*.yaml"))


def test_where_it_would_go_is_looked_at_before_images_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgcctl.cli.recipes.query", lambda *_, **__: pytest.fail("measured"))
    assert main.main(["recipes", "new", "--data-dir", str(folder), "-o", "gone/x.yaml"]) == 2
    Path("x.yaml").write_text("kept")
    assert main.main(["recipes", "new", "--data-dir", str(folder), "-o", "x.yaml"]) == 2
    assert Path("x.yaml").read_text() == "kept"


@pytest.mark.parametrize("model", ["resnet18", "python:mynets", "timm/", ""])
def test_a_wrong_network_is_refused_before_images_are_looked_at(
    folder: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("dgcctl.cli.recipes.query", lambda *_, **__: pytest.fail("measured"))
    assert main.main(["recipes", "new", "--data-dir", str(folder), "--model", model]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: my-pets.yaml:")
    assert f'model.name is "{model}" (a text); allowed: dydensenet' in said
