"""Predictions: the same preprocessing as torchvision, the best classes, and the channels that were
really used.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

import dgc
from dgc.data.classes import class_names
from dgc.errors import DataError, DivergedError
from dgc.hub.card import card_of
from dgc.hub.load_weights import Opened
from dgc.hub.registry import find_entry, load_registry
from dgc.jobs import predict as predicting
from dgc.kernels.cpu import available
from dgc.models import create_model
from dgc.recipe.load import Recipe, load_recipe
from dgcctl.cli.main import main
from dgcctl.cli.predict import _ranges

ROOT = Path(__file__).parents[2]
SMALL = ["model.stages=[1, 1]", "model.growth=[8, 16]"]


def photo(path: Path, width: int, height: int, seed: int = 0) -> Path:
    """Smooth colours with noise, as a JPEG."""
    dice = np.random.default_rng(seed)
    coarse = Image.fromarray(dice.integers(0, 256, (7, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = dice.integers(-9, 10, (height, width, 3))
    Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(
        path, quality=92
    )
    return path


@pytest.fixture(scope="module")
def opened() -> Opened:
    torch.manual_seed(0)
    recipe: Recipe = load_recipe(ROOT / "recipes" / "cifar10_h4.yaml", SMALL)
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    dgc.set_progress(model, 1.0)
    return Opened(model.eval(), recipe, card_of(recipe), "small")


@pytest.mark.parametrize("name", load_registry())
@pytest.mark.parametrize("size", [(500, 375), (300, 641), (256, 256), (64, 48)])
def test_preprocessing_is_that_of_the_released_evaluation(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    """torchvision's Resize, CenterCrop, ToTensor, Normalize (what the released code calls) give the
    same tensor.
    """
    how = find_entry(name).preprocessing
    path = photo(tmp_path / "a.jpg", *size)
    theirs = transforms.Compose(
        [
            transforms.Resize(how.resize or how.image_size),
            transforms.CenterCrop(how.image_size),
            transforms.ToTensor(),
            transforms.Normalize(how.mean, how.std),
        ]
    )(Image.open(path).convert("RGB"))
    ours = predicting.prepare(path, how)
    assert ours.shape == (1, 3, how.image_size, how.image_size)
    assert torch.allclose(ours[0], theirs, rtol=0, atol=1e-6)


def test_best_classes_and_chosen_channels(opened: Opened, tmp_path: Path) -> None:
    paths = [photo(tmp_path / f"{seed}.jpg", 60, 50, seed) for seed in range(3)]
    names = class_names("cifar10")
    found = predicting.predict(opened, names, paths)
    for path, entry in zip(paths, found, strict=True):
        with torch.no_grad():
            shares = (
                opened.model(predicting.prepare(path, opened.preprocessing)).double().softmax(1)[0]
            )
        told = entry["classes"]
        assert [row["index"] for row in told] == shares.argsort(descending=True)[:5].tolist()
        assert [row["probability"] for row in told] == pytest.approx(
            sorted(shares.tolist(), reverse=True)[:5]
        )
        assert all(row["name"] == names[row["index"]] for row in told)
    assert found[0]["layers"] != found[1]["layers"]  # the choice is the image's own


@pytest.mark.skipif(not available(), reason="the kernels were not built: no C++ compiler")
def test_in_8_bits_classes_alone_are_told(opened: Opened, tmp_path: Path) -> None:
    path, names = photo(tmp_path / "a.jpg", 40, 30), class_names("fashion_mnist")
    (plain,) = predicting.predict(opened, names, [path])
    (found,), bad = predicting.readable(opened, names, [path], precision="int8")
    assert not bad
    assert found["layers"] == []
    wanted = {row["name"]: row["probability"] for row in plain["classes"]}
    for row in found["classes"][:2]:
        assert row["probability"] == pytest.approx(wanted[row["name"]], abs=0.05)


def test_channels_are_those_that_matter(opened: Opened, tmp_path: Path) -> None:
    """The oracle for `heads`: zero the weights of all channels a head did not choose and nothing
    changes; of one that it did choose, and the answer changes.
    """
    path = photo(tmp_path / "a.jpg", 32, 32)
    x = predicting.prepare(path, opened.preprocessing)
    layers = predicting.look(opened.model, x, (), 5)["layers"]
    assert [row["name"] for row in layers] == [name for name, _ in dgc.iter_dgc(opened.model)]
    with torch.no_grad():
        wanted = opened.model(x)
        for (_, layer), row in zip(dgc.iter_dgc(opened.model), layers, strict=True):
            outputs = layer.weight.shape[0] // len(row["heads"])
            saved = layer.weight.clone()
            for head, chosen in enumerate(row["heads"]):
                assert len(chosen) <= row["keeps"] < row["in_channels"]
                unused = [c for c in range(row["in_channels"]) if c not in chosen]
                layer.weight[head * outputs : (head + 1) * outputs, unused] = 0
            assert torch.allclose(opened.model(x), wanted, atol=1e-5)
            layer.weight[:, next(chosen[0] for chosen in row["heads"] if chosen)] = 0
            assert not torch.allclose(opened.model(x), wanted, atol=1e-5)
            layer.weight.copy_(saved)


def test_an_image_that_is_none_is_named_before_anything_runs(
    opened: Opened, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"bad\.jpg: an HTML page, not an image"):
        predicting.predict(opened, (), [photo(tmp_path / "a.jpg", 9, 9), bad])
    with pytest.raises(DataError, match=r"absent\.jpg: cannot be read"):
        predicting.predict(opened, (), [tmp_path / "absent.jpg"])


def test_a_network_that_answers_nan_says_so(opened: Opened, tmp_path: Path) -> None:
    saved = opened.model.classifier.bias.detach().clone()
    with torch.no_grad():
        opened.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(DivergedError, match="answers NaN or Inf"):
        predicting.predict(opened, (), [photo(tmp_path / "a.jpg", 40, 40)])
    with torch.no_grad():
        opened.model.classifier.bias.copy_(saved)


def test_from_the_command_line(
    opened: Opened, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import save_file

    from dgc.recipe.load import dump_recipe

    weights, recipe, image = (
        tmp_path / "w.safetensors",
        tmp_path / "r.yaml",
        photo(tmp_path / "a.jpg", 40, 40),
    )
    save_file(opened.model.state_dict(), weights)
    recipe.write_text(dump_recipe(opened.recipe))
    command = ["predict", "--checkpoint", str(weights), "--recipe", str(recipe), str(image)]
    assert main([*command, "--json", "--top", "3"]) == 0
    told = json.loads(capsys.readouterr().out)["images"][0]
    wanted = predicting.predict(opened, class_names("cifar10"), [image], top=3)[0]
    assert [row["name"] for row in told["classes"]] == [row["name"] for row in wanted["classes"]]
    assert told["layers"] == wanted["layers"]
    assert main(["predict", str(image)]) == 2
    assert "give one of --run RUN, --pretrained NAME, --checkpoint FILE" in capsys.readouterr().err


def test_what_is_printed(
    opened: Opened, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dgcctl.cli.predict import _print_channels, _print_classes

    image = photo(tmp_path / "a.jpg", 40, 40)
    answer = predicting.predict(opened, class_names("cifar10"), [image])[0]
    _print_classes(answer)
    _print_channels(answer, 72)
    told = capsys.readouterr().out
    assert told.startswith(f"{tmp_path / 'a.jpg'}\n")
    assert sum(name in told for name in class_names("cifar10")) == 5
    assert "4 of 16" in told


def test_ranges() -> None:
    assert _ranges([0, 1, 2, 5, 7, 8], None) == "0-2, 5, 7-8"
    assert _ranges([], None) == "none"
    assert _ranges(list(range(0, 400, 2)), 30) == "0, 2, 4, 6, 8, 10, 12, 14, …"
