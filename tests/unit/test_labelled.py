"""Evaluation on other images goes by the names of the classes, and by what belongs to the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dgc.errors import DataError, ExitCode
from dgc.hub.card import Card, card_of
from dgc.hub.load_weights import Opened, open_run
from dgc.hub.weights_export import export_own
from dgc.jobs import evaluate
from dgc.jobs.labelled import match
from dgc.recipe.load import parse_recipe
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.train.main import run_training
from dgc.train.session import Options
from dgc.train.signals import Signals
from dgcctl.cli.main import main
from tests import image_folder
from tests.faults.training import RECIPE

EXPECT = "expect: [{metric: top1_error, value: 90.0, tolerance: 10.0, source: 'ours: anything'}]\n"


@pytest.fixture(scope="module", autouse=True)
def _switches() -> Iterator[None]:
    """A training in this process sets torch's switches; put them back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of five validation images."""
    return image_folder.make(tmp_path_factory.mktemp("images") / "mine")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> RunDir:
    """A short training on them, with an expectation that is met."""
    text = RECIPE.replace("epochs: 3", "epochs: 1").replace("num_classes: 10", "num_classes: 3")
    text = text.replace(
        "name: fashion_mnist, augment: crop_flip",
        f"name: image_folder, dir: {images}, augment: none",
    )
    text = text.replace(", limit_train: 44, limit_val: 30", "")
    folder = tmp_path_factory.mktemp("runs") / "20260101T000000Z-tiny-abcdef"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(text + EXPECT)
    run_training(RunDir(folder), Options(), Signals())
    return RunDir(folder)


def ask(tmp_path: Path, source: list[str], *arguments: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    assert evaluate.main([*source, "--device=cpu", "--json", str(out), *arguments]) == 0
    return dict(json.loads(out.read_text()))


def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: RunDir, *arguments: str
) -> str:
    out = tmp_path / "out.json"
    code = evaluate.main([f"--run-dir={run.path}", "--device=cpu", "--json", str(out), *arguments])
    said = capsys.readouterr().err
    assert code == ExitCode.DATA
    assert said.count("\n") == 1
    assert not out.exists()
    return said.removeprefix("error: ").strip()


def of(run: RunDir) -> list[str]:
    return [f"--run-dir={run.path}", "--per-class"]


FIGURES = ("top1_error", "loss", "samples", "per_class")


def figures(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in FIGURES}


def test_the_same_classes_elsewhere_and_a_lone_val_folder(
    run: RunDir, images: Path, tmp_path: Path
) -> None:
    own = ask(tmp_path, of(run))
    assert [row["name"] for row in own["per_class"]] == ["class0", "class1", "class2"]
    shutil.copytree(images / "val", tmp_path / "data" / "val")  # no train half
    shutil.copytree(images / "val", tmp_path / "lone")
    for folder in (images, tmp_path / "data", tmp_path / "lone", images / "val"):
        assert figures(ask(tmp_path, of(run), f"--data-dir={folder}")) == figures(own), folder


def test_a_subset_is_evaluated_by_name_where_that_is_asked_for(
    run: RunDir, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(images / "val" / "class2", tmp_path / "some" / "class2")
    place = tmp_path / "some"
    said = refused(tmp_path, capsys, run, f"--data-dir={place}")
    assert (
        said
        == f"{place}: its classes are not the network's 3 (only in the network: class0, class1);"
        " --subset evaluates the classes that are there"
    )
    whole = ask(tmp_path, of(run))["per_class"]
    found = ask(tmp_path, of(run), f"--data-dir={place}", "--subset")
    assert found["per_class"][2] == whole[2]
    assert [row["samples"] for row in found["per_class"]] == [0, 0, 5]
    assert (
        "1 of the network's 3 classes are evaluated; it may answer any" in capsys.readouterr().err
    )


def test_as_many_classes_of_other_names_are_refused(
    run: RunDir, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(images, tmp_path / "data")
    for split in ("train", "val"):
        (tmp_path / "data" / split / "class1").rename(
            tmp_path / "data" / split / "dog\x1b]0;x\x07\n"
        )
    for arguments in ((), ("--subset",)):
        said = refused(tmp_path, capsys, run, f"--data-dir={tmp_path / 'data'}", *arguments)
        assert said.startswith(
            f"{tmp_path / 'data' / 'val'}: its classes are not the network's 3 (only in the"
            " folder: "
        )
        assert said.isprintable()
        assert "only in the folder: dog\\x1b]0;x\\x07\\n; " in said
        assert said.endswith("; only in the network: class1)")


@pytest.mark.parametrize("made", ["absent", "empty", "without val"])
def test_a_folder_without_classes(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str], made: str
) -> None:
    place = tmp_path / "data"
    if made != "absent":
        place.mkdir()
    if made == "without val":
        (place / "train" / "class0").mkdir(parents=True)
    said = refused(tmp_path, capsys, run, f"--data-dir={place}")
    assert str(place) in said
    assert {"absent": "no such folder", "empty": "no class folders in it", "without val": "val"}[
        made
    ] in said


def test_the_runs_own_folder_whose_classes_have_changed(
    run: RunDir, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        (images / split / "class0").rename(images / split / "zebra")
    try:
        said = refused(tmp_path, capsys, run)
    finally:
        for split in ("train", "val"):
            (images / split / "zebra").rename(images / split / "class0")
    assert "only in the folder: zebra; only in the network: class0" in said


def opened(
    classes: tuple[str, ...], folders: tuple[str, ...] = (), data: str = "image_folder"
) -> Opened:
    text = RECIPE.replace("num_classes: 10", f"num_classes: {len(classes) or 3}")
    recipe = parse_recipe(
        text.replace("fashion_mnist, augment: crop_flip", f"{data}, augment: none"), "recipe"
    )
    card = Card(card_of(recipe).preprocessing, classes, folders)
    return Opened(torch.nn.Identity(), recipe, card, "the network")


def test_names_in_any_order() -> None:
    labels, note = match(["ant", "bee", "cat"], opened(("cat", "ant", "bee")), "here", subset=False)
    assert labels.tolist() == [1, 2, 0]
    assert note == ""
    labels, _ = match(
        ["e\u0301te", "T-shirt_top"], opened(("T-shirt/top", "\u00e9te")), "here", subset=False
    )
    assert labels.tolist() == [1, 0]


def test_names_that_nobody_recorded_go_by_order_and_that_is_said() -> None:
    labels, note = match(["x", "y", "z"], opened(()), "here", subset=False)
    assert labels.tolist() == [0, 1, 2]
    assert (
        note
        == "the network does not say what its classes are called: labels go by the folders' order"
    )
    with pytest.raises(
        DataError, match="here: 2 classes, but the network has 3, and what they are called was not"
    ):
        match(["x", "y"], opened(()), "here", subset=True)


def test_imagenets_folders_are_numbers_and_its_classes_words() -> None:
    words, numbers = tuple(f"word {i}" for i in range(1000)), [f"n{i:08d}" for i in range(1000)]
    labels, _ = match(numbers, opened(words, data="imagenet"), "here", subset=False)
    assert labels.tolist() == list(range(1000))
    with pytest.raises(DataError, match="10 classes, but the network has 1000"):
        match(numbers[:10], opened(words, data="imagenet"), "here", subset=True)
    labels, _ = match(numbers[5:7], opened(words, tuple(numbers), "imagenet"), "here", subset=True)
    assert labels.tolist() == [5, 6]
    with pytest.raises(DataError, match="several classes called crane"):
        match(["crane"], opened(("crane", "crane", "dog")), "here", subset=True)


# --- what is expected, and what means something ---------------------------------------------------


def test_an_expectation_holds_for_the_images_it_was_made_for(
    run: RunDir, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ask(tmp_path, of(run))
    assert [row["metric"] for row in own["expected"]] == ["top1_error"]
    assert own["not_judged"] is None
    assert ask(tmp_path, of(run), f"--data-dir={images}")["expected"] == own["expected"]
    other = image_folder.make(tmp_path / "other", val=2)
    found = ask(tmp_path, of(run), f"--data-dir={other}")
    assert found["expected"] == []
    assert found["not_judged"] == f"it was made for other images than {other / 'val'}"
    command = ["eval", "--run", str(run.path), "--data-dir", str(other), "--check"]
    assert main(command) == ExitCode.USAGE
    out, said = capsys.readouterr()
    assert out == ""
    assert "--check, but its expectation is not judged here: it was made for other images" in said


@pytest.mark.parametrize("called", ["val", "test", "holdout"])
def test_whether_these_are_the_runs_images_does_not_depend_on_the_folders_name(
    run: RunDir, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], called: str
) -> None:
    """The same images under any name are judged without a word; others are said to be others."""
    shutil.copytree(images / "val", tmp_path / "data" / called)
    command = ["eval", "--run", str(run.path), "--data-dir", str(tmp_path / "data" / called)]
    found = ask(tmp_path, of(run), *command[3:])
    assert (found["data"]["same"], found["not_judged"]) == (True, None)
    assert main([*command, "--check"]) == 0
    assert "not the images" not in capsys.readouterr().err

    next((tmp_path / "data" / called / "class0").iterdir()).unlink()
    found = ask(tmp_path, of(run), *command[3:])
    assert (found["data"]["same"], found["data"]["half"]) == (False, called)
    capsys.readouterr()
    assert main(command) == 0
    told = f"these are not the images of the run: 14 instead of 15, in {tmp_path / 'data' / called}"
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "not the images" in line] == [
        f"warning: {told}" if called == "val" else told
    ]


def test_a_folder_that_only_holds_the_one_with_the_classes_is_met_with_its_name(
    run: RunDir, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(images / "val", tmp_path / "data" / "test")
    said = refused(tmp_path, capsys, run, f"--data-dir={tmp_path / 'data'}")
    assert said == (
        f"{tmp_path / 'data'}: the class folders lie one level down, in test: name that folder, as"
        f" --data-dir {tmp_path / 'data' / 'test'}"
    )


def test_of_five_classes_or_fewer_there_is_no_top5(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "top5_error" not in ask(tmp_path, of(run))
    assert "top5_error" not in read_json(run.metrics)
    assert main(["eval", "--run", str(run.path)]) == 0
    assert "top-5" not in capsys.readouterr().out


# --- what travels with the weights ----------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_own(run, tmp_path_factory.mktemp("export") / "mine")[0]


@pytest.mark.parametrize("form", ["with its record", "by itself", "in its checkpoint"])
def test_an_exported_file_says_the_names_of_its_classes(
    run: RunDir,
    exported: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    file = exported
    if form == "by itself":
        file = tmp_path / "alone.safetensors"
        shutil.copyfile(exported, file)
    if form == "in its checkpoint":
        file = run.path / str(read_json(run.last)["path"]) / "model.safetensors"
    picture = next((images / "val" / "class1").iterdir())
    assert main(["predict", "--checkpoint", str(file), str(picture), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["images"][0]["classes"]
    assert sorted(row["name"] for row in told) == ["class0", "class1", "class2"]
    assert figures(ask(tmp_path, [f"--weights={file}", "--per-class"])) == figures(
        ask(tmp_path, of(run))
    )


def test_an_exports_classes_decide_too(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = image_folder.make(tmp_path / "other")
    (other / "val" / "class1").rename(other / "val" / "dog")
    out = tmp_path / "out.json"
    asked = [f"--weights={exported}", f"--data-dir={other}", "--device=cpu", "--json", str(out)]
    assert evaluate.main(asked) == ExitCode.DATA
    assert "only in the folder: dog; only in the network: class1" in capsys.readouterr().err


def test_the_recipe_at_hand_changes_no_preprocessing(
    run: RunDir, exported: Path, images: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    text = run.recipe.read_text()
    assert "0.286" in text
    recipe.write_text(text.replace("0.286", "0.9"))
    found = ask(tmp_path, [f"--weights={exported}", f"--recipe={recipe}", "--per-class"])
    assert figures(found) == figures(ask(tmp_path, of(run)))


def test_a_network_of_grey_images_sees_grey(images: Path, tmp_path: Path) -> None:
    """Evaluation on files of colour gives a Fashion-MNIST network what predict gives it."""
    from dgc.data.image_sets import FolderSet, View
    from dgc.jobs import predict

    recipe = parse_recipe(RECIPE, "recipe")
    path = next((images / "val" / "class1").iterdir())
    seen = FolderSet(path.parent, [path.name], np.zeros(1, np.int64), View("none", 32, grey=True))
    pixels = seen.pixels(0, 0, np.zeros(1, np.int64))[0]
    assert (pixels[..., 0] == pixels[..., 2]).all()
    how = card_of(recipe).preprocessing
    assert how.channels == 1
    shown = torch.from_numpy(pixels).permute(2, 0, 1).div(255)
    mean, std = (torch.tensor(value)[:, None, None] for value in (how.mean, how.std))
    assert torch.allclose(predict.prepare(path, how)[0], (shown - mean) / std, atol=1e-6)


def test_eval_predict_and_export_take_the_last_step(run: RunDir, exported: Path) -> None:
    last = int(read_json(run.last)["step"])
    assert read_json(exported.with_suffix(".json"))["step"] == last
    assert open_run(run).title == f"{run.id} (step-{last:06d})"
