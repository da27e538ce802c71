"""`eval` of released and exported files on real JPEGs: the oracle's figure, on any number of ranks,
with every engine.

The JPEGs are those of `../shared/data` (CIFAR-10 (JPEG, 10k/2k)), which are not part of the
project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dgc
from dgc.hub.cache import Cache
from dgc.hub.card import card_of
from dgc.hub.registry import find_entry
from dgc.jobs import evaluate
from dgc.jobs import predict as predicting
from dgc.kernels import cpu
from dgc.models import create_model
from dgc.recipe.load import dump_recipe, load_recipe
from dgcctl.cli.main import main
from tests import released
from tests.waiting import GUARD

ROOT = Path(__file__).parents[2]
JPEGS = ROOT.parent / "shared" / "data" / "cifar10_jpeg_10k_2k.npz"
NAME = "cifar10_dydensenet86_h4"
SMALL = ["model.stages=[1, 1]", "model.growth=[8, 16]", "eval.batch_size=16", "data.workers=0"]
IMAGES = 70  # five batches, the last one short

needs_jpegs = pytest.mark.skipif(
    not JPEGS.exists(), reason="needs ../shared/data/cifar10_jpeg_10k_2k.npz"
)


@pytest.fixture(scope="module", autouse=True)
def _switches() -> Iterator[None]:
    """An evaluation in this process sets torch's switches; put them back."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """IMAGES validation images and one training image a class, as {train,val}/<class>/<n>.jpg."""
    root = tmp_path_factory.mktemp("jpeg")
    archive = np.load(JPEGS, allow_pickle=False)
    first = {int(label): index for index, label in reversed(list(enumerate(archive["train_y"])))}
    chosen = [("train", "train", index) for index in first.values()] + [
        ("test", "val", index) for index in range(IMAGES)
    ]
    for split, target, index in chosen:
        offsets = archive[f"{split}_off"]
        path = (
            root
            / target
            / str(archive["classes"][archive[f"{split}_y"][index]])
            / f"{index:05d}.jpg"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive[f"{split}_jpeg"][offsets[index] : offsets[index + 1]].tobytes())
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, nn.Module]:
    """(weights, recipe, network) of a small network in our own format."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("small")
    recipe = load_recipe(ROOT / "recipes" / "cifar10_h4.yaml", SMALL)
    torch.manual_seed(3)
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    dgc.set_progress(model, 1.0)
    save_file(model.state_dict(), root / "w.safetensors")
    (root / "r.yaml").write_text(dump_recipe(recipe))
    return root / "w.safetensors", root / "r.yaml", model.eval()


def by_the_oracle(model: nn.Module, folder: Path, how: Any) -> dict[str, float]:
    """Errors counted one image at a time, every layer the slow way."""
    classes = sorted(path.name for path in (folder / "val").iterdir())
    paths = sorted((folder / "val").glob("*/*.jpg"))
    with torch.no_grad():
        logits = torch.cat(
            [released.oracle(model)(predicting.prepare(path, how)) for path in paths]
        )
    labels = torch.tensor([classes.index(path.parent.name) for path in paths])
    ranked = logits.topk(5).indices == labels[:, None]
    wrong = 100 * (1 - ranked[:, :1].double().mean()), 100 * (1 - ranked.any(1).double().mean())
    loss = nn.functional.cross_entropy(logits.double(), labels)
    return {
        "top1_error": float(wrong[0]),
        "top5_error": float(wrong[1]),
        "loss": float(loss),
        "samples": len(paths),
    }


def agree(found: dict[str, Any], wanted: dict[str, float], tied: int = 0) -> None:
    """The same figures. `tied`: so many images may have two gates so near that float32 orders them
    either way.
    """
    assert found["samples"] == wanted["samples"]
    share = tied / wanted["samples"]
    for key in ("top1_error", "top5_error"):
        assert found[key] == pytest.approx(wanted[key], abs=100 * share + 1e-9), key
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-5 + share)


def measured(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    assert evaluate.main([*arguments, "--device=cpu", "--json", str(out)]) == 0
    return dict(json.loads(out.read_text()))


def of_small(small: tuple[Path, Path, nn.Module], folder: Path) -> list[str]:
    return [f"--weights={small[0]}", f"--recipe={small[1]}", f"--data-dir={folder}"]


@needs_jpegs
def test_every_engine_gives_the_oracles_figure(
    small: tuple[Path, Path, nn.Module], folder: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(small[1])
    wanted = by_the_oracle(small[2], folder, card_of(recipe).preprocessing)
    engines = ["eager", *(["native"] if cpu.available() else [])]
    for engine in engines:
        found = measured(tmp_path, *of_small(small, folder), f"--engine={engine}")
        assert found["engine"] == engine
        assert found["expected"] == []  # its recipe's is for the whole network
        agree(found, wanted)


@needs_jpegs
@pytest.mark.slow
def test_the_compiled_engine_too(
    small: tuple[Path, Path, nn.Module], folder: Path, tmp_path: Path
) -> None:
    found = measured(tmp_path, *of_small(small, folder), "--engine=compile")
    assert found["engine"] == "compile"
    agree(found, by_the_oracle(small[2], folder, card_of(load_recipe(small[1])).preprocessing))


def on_ranks(count: int, tmp_path: Path, arguments: list[str], **env: str) -> dict[str, Any]:
    out = tmp_path / "ranks.json"
    command = [
        sys.executable,
        "-m",
        "dgc.train.launch",
        "--standalone",
        f"--nproc-per-node={count}",
    ]
    command += ["-m", "dgc.jobs.evaluate", *arguments, "--device=cpu", "--json", str(out)]
    subprocess.run(
        command,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        timeout=GUARD,
    )
    return dict(json.loads(out.read_text()))


@needs_jpegs
@pytest.mark.parametrize("engine", ["eager", pytest.param("native", marks=pytest.mark.slow)])
def test_two_ranks_give_the_same_digits(
    small: tuple[Path, Path, nn.Module], folder: Path, tmp_path: Path, engine: str
) -> None:
    if engine == "native" and not cpu.available():
        pytest.skip(f"no native kernels here: {cpu.describe()}")
    arguments = [*of_small(small, folder), f"--engine={engine}", "--per-class"]
    one, two = measured(tmp_path, *arguments), on_ranks(2, tmp_path, arguments)
    assert two["world_size"] == 2
    for key in ("top1_error", "top5_error", "loss", "samples", "per_class", "macs", "parameters"):
        assert one[key] == two[key], key


def network(folder: Path) -> nn.Module:
    """The released network with random weights, at home among these images."""
    paths = sorted((folder / "val").glob("*/*.jpg"))[::5]
    images = [predicting.prepare(path, find_entry(NAME).preprocessing) for path in paths]
    return released.random_network(NAME, 32, images=torch.cat(images))


@pytest.fixture(scope="module")
def cache(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache with a full-size file of random weights in the released format."""
    made = Cache(tmp_path_factory.mktemp("cache"))
    made.folder.mkdir()
    content = released.released_content(network(folder))
    released.write(made.file(f"{NAME}.tar"), content, zipped=False)
    return made


@needs_jpegs
def test_a_released_network_on_jpegs(
    cache: Cache,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole way, as a user goes it: figures beside the published ones, per class, a picture;
    the oracle agrees.
    """
    monkeypatch.setenv("DGCCTL_CACHE_DIR", str(cache.root))
    monkeypatch.setenv("DGCCTL_OFFLINE", "1")
    picture = tmp_path / "confusion.png"
    command = ["eval", "--pretrained", NAME, "--data-dir", str(folder), "--engine", "eager"]
    assert main([*command, "--per-class", "--plot", str(picture), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    agree(found, by_the_oracle(network(folder), folder, find_entry(NAME).preprocessing), tied=1)
    assert found["verdicts"] == []
    assert (
        f"it was made for the 10,000 images of cifar10, and {folder / 'val'} has 70"
        in found["not_judged"]
    )
    assert found["macs"]["promised"] == 71_037_118
    assert sum(row["samples"] for row in found["per_class"]) == IMAGES
    assert picture.read_bytes()[:4] == b"\x89PNG"


@needs_jpegs
def test_without_data_or_network(
    cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 3 and what to do; exit 6, the link and the import command."""
    monkeypatch.setenv("DGCCTL_CACHE_DIR", str(cache.root))
    monkeypatch.setenv("DGCCTL_OFFLINE", "1")
    monkeypatch.setenv("DGCCTL_DATA_DIR", str(tmp_path / "none"))
    out = ["--json", str(tmp_path / "out.json")]
    assert evaluate.main(["--pretrained=" + NAME, f"--data-dir={tmp_path / 'absent'}", *out]) == 3
    assert "data" in capsys.readouterr().err
    assert evaluate.main(["--pretrained=imagenet_dyresnet18_h4", *out]) == 6
    line = capsys.readouterr().err
    assert "drive.google.com/file/d/" in line
    assert "dgcctl ckpt import FILE --name imagenet_dyresnet18_h4" in line
    assert not (tmp_path / "out.json").exists()


@pytest.mark.slow
def test_imagenet_transforms_on_an_image_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 classes of JPEGs of odd sizes, resized to 256 and cropped to 224: the oracle's figure."""
    from tests.unit.test_predict import photo

    name, root = "imagenet_dyresnet18_h4", tmp_path / "imagenet"
    base = [photo(tmp_path / f"{i}.jpg", 300 + 37 * i, 270 + 11 * i, i) for i in range(6)]
    for split in ("train", "val"):
        for label in range(1000):
            (root / split / f"n{label:08d}").mkdir(parents=True)
            os.link(base[label % 6], root / split / f"n{label:08d}" / "a.jpg")
    cache = Cache(tmp_path / "cache")
    cache.folder.mkdir(parents=True)
    prepared = torch.cat(
        [predicting.prepare(path, find_entry(name).preprocessing) for path in base]
    )
    model = released.random_network(name, 224, images=prepared)
    released.write(cache.file(f"{name}.tar"), released.released_content(model), zipped=True)
    monkeypatch.setenv("DGCCTL_CACHE_DIR", str(cache.root))
    monkeypatch.setenv("DGCCTL_OFFLINE", "1")
    found = measured(tmp_path, f"--pretrained={name}", f"--data-dir={root}", "--limit=12")
    one = measured(
        tmp_path, f"--pretrained={name}", f"--data-dir={root}", "--limit=12", "--engine=auto"
    )
    assert found["samples"] == 12
    assert (one["top1_error"], one["top5_error"]) == (found["top1_error"], found["top5_error"])
    assert one["loss"] == pytest.approx(found["loss"], rel=1e-5)
    with torch.no_grad():
        losses = nn.functional.log_softmax(released.oracle(model)(prepared).double(), 1)
    from dgc.data.rng import subset

    labels = [int(index) for index in subset(1000, 12)]
    wanted = -sum(float(losses[label % 6, label]) for label in labels) / 12
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
