"""Networks and images that are not ours, by a recipe: the whole road from the dense network to the
converted one and its evaluation, code of one's own behind --trust-code, and what is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.run.checkpoint_store import read_verified
from dgc.run.files import read_json
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
NETS = """
from torch import nn
from mynets.blocks import block


def build(num_classes, width=32):
    return nn.Sequential(
        block(3, width, 2), block(width, 2 * width, 2), block(2 * width, 2 * width, 1),
        block(2 * width, 2 * width, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


def tell(num_classes):
    print("ran")
    raise RuntimeError("no\\nnetwork today")
"""
BLOCKS = """
from torch import nn


def block(inputs, outputs, stride):
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())
"""
IMAGES = """
import numpy as np


class Spots:
    classes = ("left", "right")

    def __init__(self, count, size):
        self.size, self.labels = size, [i % 2 for i in range(count)]

    def __getitem__(self, index):
        image = np.full((self.size, self.size, 3), index % 50, np.uint8)
        half = self.size // 2
        image[:, half:] += np.uint8(200 * self.labels[index])
        image[:, :half] += np.uint8(200 * (1 - self.labels[index]))
        return image


def spots(split, size=40):
    return Spots(64 if split == "train" else 20, size)


def arrays(split):
    return np.zeros((40, 32, 32, 1), np.uint8), np.arange(40) % 10
"""
RECIPE = """
name: own
title: "a network of one's own on the embedded images"
source: ours
model: {name: "python:mynets.nets:build", form: dense, num_classes: 10, args: {width: 16}, heads: 4}
data:
  {name: fashion_mnist, augment: none, image_size: 32, workers: 0, limit_train: 1500, limit_val: 400,
   mean: [0.286, 0.286, 0.286], std: [0.353, 0.353, 0.353]}
optim: {lr: 0.1}
train: {epochs: 3, batch_size: 50}
eval: {batch_size: 100}
"""
TRUST = ("--trust-code", "mynets")


class Place:
    """A folder with a package and a recipe, and the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = folder / "mynets"
        package.mkdir()
        (package / "__init__.py").write_text("from os import getcwd\n")
        for name, text in (("nets", NETS), ("blocks", BLOCKS), ("images", IMAGES)):
            (package / f"{name}.py").write_text(text)
        (folder / "own.yaml").write_text(RECIPE)

    def run(self, *words: str, code: int = 0, **env: str) -> tuple[str, str]:
        whole = {**os.environ, "PYTHONPATH": str(ROOT), "DGCCTL_OFFLINE": "1", **env}
        done = subprocess.run(
            [sys.executable, "-m", "dgcctl", *words],
            cwd=self.folder, env=whole, capture_output=True, text=True, check=False, timeout=GUARD,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def refused(self, code: int, *words: str) -> str:
        """The one error line of a command that fails."""
        runs = set(self.runs)
        _, said = self.run(*words, code=code)
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, said
        assert "Traceback" not in said
        assert set(self.runs) == runs, "nothing is left behind"
        return lines[0]

    @property
    def runs(self) -> list[Path]:
        """Newest last."""
        folder = self.folder / "runs"
        return sorted(folder.iterdir(), key=lambda p: p.stat().st_ctime) if folder.is_dir() else []


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Trained dense, then converted and fine-tuned."""
    place = Place(tmp_path_factory.mktemp("road"))
    place.run("train", "own.yaml", *TRUST)
    dense = place.runs[-1]
    dense.rename(dense.with_name("dense"))
    place.run("train", "own.yaml", "model.form=dgc", "model.gate_factor=0.25", "optim.lr=0.05",
              "--init", "dense", *TRUST)  # fmt: skip
    (made,) = [run for run in place.runs if run.name != "dense"]
    made.rename(made.with_name("converted"))
    return place


def error_of(place: Place, run: str) -> float:
    return float(read_json(place.folder / "runs" / run / "metrics.json")["top1_error"])


def test_the_road_from_the_dense_network_to_the_converted_one(road: Place) -> None:
    dense, converted = (error_of(road, run) for run in ("dense", "converted"))
    assert dense < 60
    assert converted < dense + 12, "fine-tuning keeps what was learnt"
    model = read_json(road.folder / "runs/converted/model.json")
    assert model["init"]["file"].endswith("model.safetensors")
    assert model["conversion"]["converted"] == 3
    why = {row["name"]: row["why"] for row in model["conversion"]["layers"]}
    assert why["0.0"] == "3 input channels, fewer than 16"
    macs = read_json(road.folder / "runs/converted/metrics.json")
    assert macs["macs_executed"] < 0.5 * macs["macs_dense"]


def test_eval_predict_and_profile_build_the_recorded_network(road: Place) -> None:
    out, _ = road.run("eval", "--run", "converted", *TRUST, "--engine", "eager", "--json")
    assert json.loads(out)["top1_error"] == pytest.approx(error_of(road, "converted"))
    out, _ = road.run("eval", "--run", "converted", *TRUST, "--json")
    assert json.loads(out)["top1_error"] == pytest.approx(error_of(road, "converted"), abs=0.6)
    out, _ = road.run("profile", "runs/converted/recipe.yaml", *TRUST, "--json")
    kinds = [row["kind"] for row in json.loads(out)["layers"]]
    assert kinds.count("DynamicGroupConv2d") == 3


def test_sensitivity_tries_one_layer_at_a_time(road: Place) -> None:
    given = ("sensitivity", "converted", *TRUST, "--limit", "200")
    out, said = road.run(*given, "--shares", "0.25,1,0.125", "--json")
    found = json.loads(out)
    assert found["run"] == "converted"
    assert (found["samples"], found["shares"]) == (200, [0.125, 0.25, 1.0])
    assert [(row["name"], row["share"]) for row in found["layers"]] == [
        ("1.0", 0.25), ("2.0", 0.25), ("3.0", 0.25),
    ]  # fmt: skip
    assert "3 of 3 layers: 3.0" in said
    out, _ = road.run(
        "eval", "--run", "converted", *TRUST, "--engine", "eager", "--limit", "200", "--json"
    )
    same = json.loads(out)
    for row in found["layers"]:
        less, now, more = row["at"]
        assert (now["top1_error"], now["loss"]) == (same["top1_error"], same["loss"])
        assert now["macs"] == same["macs"]["executed"] == found["now"]["macs"]
        assert less["macs"] < now["macs"] < more["macs"]
        assert less["loss"] != now["loss"]
    out, said = road.run(*given, "--shares", "0.25", "--csv")
    assert out.splitlines()[0] == "name,channels,share,error_at_0.25"
    assert len(out.splitlines()) == 4
    assert "as it was trained, on 200 images" in said


def test_sensitivity_says_what_it_cannot_do(road: Place) -> None:
    assert "has no dynamic layers" in road.refused(2, "sensitivity", "dense", *TRUST)
    for shares in ("0.5,2", "much", ""):
        said = road.refused(2, "sensitivity", "converted", *TRUST, f"--shares={shares}")
        assert f"--shares {shares}: give numbers with commas between them" in said
    assert road.refused(5, "sensitivity", "converted")


def test_a_checkpoint_says_what_its_network_is_made_of(road: Place) -> None:
    (folder,) = (road.folder / "runs/converted/checkpoints").glob("step-000090")
    found = json.loads(read_verified(folder)["structure.json"])
    assert found["builder"] == {
        "name": "python:mynets.nets:build",
        "arguments": {"num_classes": 10, "width": 16},
    }
    assert set(found["layers"]) == {"1.0", "2.0", "3.0"}
    assert found["layers"]["1.0"]["gate_factor"] == 0.25


SCRIPT = """
import sys
import torch
from safetensors.torch import load_file, save_file
import dgc
from mynets.nets import build
dense = build(10, width=16)
dense.load_state_dict(load_file(sys.argv[1]))
save_file(dense.state_dict(), "own.safetensors")
torch.save(dense.state_dict(), "own.pt")
with dgc.run.start("script", {"width": 16}, runs_dir="runs") as run:
    dgc.convert(dense, torch.randn(1, 3, 32, 32), heads=4, gate_factor=0.25)
    run.checkpoint(dense, step=1)
run.path.rename(run.path.with_name("script"))
"""


@pytest.fixture(scope="module")
def scripted(road: Place) -> Place:
    """Weights that do not say which network they are of: two files, and a script's checkpoint."""
    (road.folder / "own.py").write_text(SCRIPT)
    weights = max((road.folder / "runs/dense/checkpoints").glob("*/model.safetensors"))
    subprocess.run(
        [sys.executable, "own.py", str(weights)],
        cwd=road.folder, env={**os.environ, "PYTHONPATH": f"{ROOT}:."}, check=True, timeout=GUARD,
    )  # fmt: skip
    return road


def newest(place: Place) -> Path:
    """The run that a training has just made; those of the fixtures have names of their own."""
    (run,) = (run for run in place.runs if "-own-" in run.name)
    return run


@pytest.mark.parametrize("file", ["own.safetensors", "own.pt", "script"])
def test_weights_that_name_no_network_teach_and_are_evaluated(scripted: Place, file: str) -> None:
    few = ("train.epochs=1", "data.limit_train=100", "data.limit_val=50")
    scripted.run("train", "own.yaml", "model.form=dgc", "model.gate_factor=0.25", *few,
                 "--teacher", file, *TRUST)  # fmt: skip
    run = newest(scripted)
    told = read_json(run / "model.json")["teacher"]
    assert told["network"] == "python:mynets.nets:build"
    shown, _ = scripted.run("runs", "show", run.name)
    assert f"taught by {told['file']}" in " ".join(shown.split())
    shutil.rmtree(run)
    # and they are measured as the network of a recipe that says which it is
    as_file = file if file != "script" else str(Path(told["file"]))
    form = ["model.form=dgc", "model.gate_factor=0.25"] if file == "script" else []
    recipe = scripted.folder / "measured.yaml"
    recipe.write_text(RECIPE if not form else RECIPE.replace("form: dense", "form: dgc"))
    out, _ = scripted.run("eval", "--checkpoint", as_file, "--recipe", "measured.yaml", *TRUST,
                          "--engine", "eager", "--json")  # fmt: skip
    assert json.loads(out)["samples"] == 400
    if not form:
        assert json.loads(out)["top1_error"] == error_of(scripted, "dense")


def test_training_starts_from_the_converted_network_of_a_script(scripted: Place) -> None:
    scripted.run("train", "own.yaml", "model.form=dgc", "model.gate_factor=0.25", "--init", "script",
                 "train.epochs=1", "data.limit_train=100", "data.limit_val=50", *TRUST)  # fmt: skip
    run = newest(scripted)
    shown, _ = scripted.run("runs", "show", run.name)
    assert "starts from " + read_json(run / "model.json")["init"]["file"] in " ".join(shown.split())
    shutil.rmtree(run)
    shown, _ = scripted.run("runs", "show", "script")
    assert "config width=16" in " ".join(shown.split())
    assert "its script goes on with it, evaluates it" in scripted.refused(
        2, "eval", "--run", "script"
    )


@pytest.mark.parametrize(
    ("width", "said"), [("24", "does not fit the network: 0.0.weight has shape [16, 3, 3, 3]")]
)
def test_weights_of_another_network_teach_nobody(scripted: Place, width: str, said: str) -> None:
    words = ("train", "own.yaml", f"model.args.width={width}", "--teacher", "own.pt", *TRUST)
    before = set(scripted.runs)
    _, err = scripted.run(*words, code=4)
    line = next(line for line in err.splitlines() if line.startswith("error: "))
    assert f"train.teacher = {scripted.folder / 'own.pt'}: {said}" in line
    for run in set(scripted.runs) - before:
        shutil.rmtree(run)


def test_code_that_nobody_trusted_is_not_run(road: Place) -> None:
    says = "error: model.name = python:mynets.nets:build: this runs code of mynets, which was not"
    for words in (
        ("train", "own.yaml"), ("rerun", "dense"), ("eval", "--run", "dense"),
        ("profile", "own.yaml"), ("sweep", "own.yaml", "seed=0,1"),
    ):  # fmt: skip
        line = road.refused(5, *words)
        assert line.startswith(says)
        assert line.endswith("say --trust-code mynets")
    assert "trusted" in road.refused(5, "train", "own.yaml", "--trust-code", "other")
    line = road.refused(2, "train", "own.yaml", "--trust-code", "mynets.nets")
    assert line.startswith("error: --trust-code mynets.nets: should be the name of one package")


def test_the_project_file_may_trust_too(road: Place) -> None:
    (road.folder / "dgcctl.toml").write_text('trust_code = ["mynets"]\n')
    try:
        road.run("eval", "--run", "dense", "--engine", "eager", "--limit", "40")
        (road.folder / "dgcctl.toml").write_text('trust_code = ["mynets.nets"]\n')
        assert "dgcctl.toml: trust_code = ['mynets.nets'] should be" in road.refused(
            2, "runs", "ls"
        )
    finally:
        (road.folder / "dgcctl.toml").unlink()


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ("model.name=python:mynets:getcwd", 5, "getcwd is defined in posix, outside of mynets"),
        ("model.name=python:mynets.gone:build", 2, "no module mynets.gone here"),
        ("model.name=python:mynets.nets:gone", 2, "mynets.nets has no function gone"),
        ("model.args={widht: 3}", 2, "TypeError: build() got an unexpected keyword argument"),
        ("model.args={num_classes: 3}", 2, "model.args.num_classes: write model.num_classes"),
        ("model.form=sgc", 2, "model.form = sgc is there for dydensenet and dyresnet18 alone"),
        ("model.init=https://x/y.pth", 2, "model.init = https://x/y.pth is an address"),
        ("model.init=gone.safetensors", 3, "model.init = gone.safetensors: no such file"),
        ("model.reset=[fc.*]", 2, "and model.init is not given"),
        (f"model.init_sha256={'ab' * 32}", 2, "the digest of model.init, and model.init is not"),
        ("model.init_sha256=abc", 2, 'model.init_sha256 is "abc" (a text); allowed'),
    ],
)
def test_what_is_refused_is_one_line(road: Place, change: str, code: int, said: str) -> None:
    line = road.refused(code, "train", "own.yaml", change, *TRUST)
    assert said in line


def test_a_fault_in_the_code_is_named_with_its_place(road: Place) -> None:
    change = ("model.name=python:mynets.nets:tell", "model.args={}")
    line = road.refused(2, "train", "own.yaml", *change, *TRUST)
    assert "mynets/nets.py:" in line
    assert line.endswith("RuntimeError: no network today")


def test_names_that_do_not_exist_have_near_ones(road: Place) -> None:
    line = road.refused(2, "train", "own.yaml", "model.name=torchvision/resnet51", "model.args={}")
    assert "torchvision has no resnet51; near it are resnet50" in line
    line = road.refused(2, "train", "own.yaml", "model.name=resnet50")
    assert 'model.name is "resnet50" (a text); allowed: dydensenet, dyresnet18, torchvision/NAME' in line  # fmt: skip


def test_patterns_that_mean_nothing_are_errors(road: Place) -> None:
    given = ("model.form=dgc", *TRUST)
    line = road.refused(2, "train", "own.yaml", "model.convert.exclude=[layer9]", *given)
    assert "model.convert: exclude: 'layer9' matches no convolution" in line


def test_weights_of_a_converted_network_bring_their_layers(road: Place) -> None:
    given = ("train", "own.yaml", "model.form=dgc", "--init", "converted", *TRUST)
    line = road.refused(2, *given, "model.convert.exclude=[layer1]")
    assert "brings its layers with it: leave model.convert out" in line
    line = road.refused(2, *given)
    assert "was converted with gate_factor 0.25, and model.gate_factor = 0.5" in line
    line = road.refused(2, "train", "own.yaml", "--init", "converted", *TRUST)
    assert "are weights of a converted network, and model.form = dense" in line
    fits = ("model.gate_factor=0.25", "model.args={width: 32}")
    line = road.refused(4, *given, *fits)
    assert "model.safetensors: structure: 1.0 has in_channels 32, recorded 16" in line
    other = ("--init", "dense", f"model.init_sha256={'ab' * 32}")
    line = road.refused(4, "train", "own.yaml", *other, *TRUST)
    assert "SHA-256 was abababababab, is " in line
    assert "other weights than the recipe was made for" in line
    assert "is no file and no run" in road.refused(2, "train", "own.yaml", "--init", "nothing")


def test_a_changed_file_is_named_by_verify_rerun_and_resume(road: Place, tmp_path: Path) -> None:
    place = Place(tmp_path)
    shutil.copytree(road.folder / "runs" / "dense", place.folder / "runs" / "dense")
    record = place.folder / "runs/dense/own_code.json"
    told = read_json(record)
    told["packages"]["mynets"]["place"] = str(place.folder)
    assert set(told["packages"]["mynets"]["files"]) == {
        "mynets/__init__.py", "mynets/nets.py", "mynets/blocks.py",
    }  # fmt: skip
    record.write_text(json.dumps(told))
    place.run("runs", "verify", "dense", "--quick")
    (place.folder / "mynets/blocks.py").write_text(BLOCKS + "# changed\n")
    assert "own code, mynets/blocks.py" in place.refused(4, "runs", "verify", "dense", "--quick")
    _, said = place.run("rerun", "dense", "--check", "--current-code", *TRUST, code=2)
    copy = place.folder / "runs/dense/own_code/mynets/blocks.py"
    assert "warning: dense: mynets/blocks.py was" in said
    where = f"(as it was: {copy.relative_to(place.folder)})"
    assert f"{where}, so other bits are to be expected: nothing was run" in said
    assert copy.read_text() == BLOCKS

    shutil.copy(copy, place.folder / "mynets/blocks.py")
    place.run("runs", "verify", "dense", "--quick")
    copy.write_text(BLOCKS + "# changed\n")
    line = place.refused(4, "runs", "verify", "dense", "--quick")
    assert "own_code/mynets/blocks.py" in line


def test_resume_names_a_changed_file(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.run("train", "own.yaml", "train.max_steps=4", "checkpoint.every_steps=2",
              "train.epochs=1", *TRUST)  # fmt: skip
    run = place.runs[-1]
    status = read_json(run / "status.json")
    (run / "status.json").write_text(json.dumps({**status, "state": "failed"}))
    (place.folder / "mynets/blocks.py").write_text(BLOCKS + "# changed\n")
    _, said = place.run("resume", run.name, *TRUST, code=2)
    assert "cannot go on exactly: mynets/blocks.py was" in said
    assert "not trusted" in place.run("resume", run.name, code=5)[1]


def test_images_of_ones_own(tmp_path: Path) -> None:
    place = Place(tmp_path)
    given = ("train", "own.yaml", "data.name=python:mynets.images:spots", "data.args={size: 48}",
             "model.num_classes=2", "data.limit_train=null", "data.limit_val=null",
             "data.mean=[0.5, 0.5, 0.5]", "data.std=[0.5, 0.5, 0.5]", "train.batch_size=16")  # fmt: skip
    assert "data.name = python:mynets" in place.refused(5, *given, "model.name=torchvision/alexnet")
    place.run(*given, *TRUST)
    facts = read_json(place.runs[-1] / "data.json")
    assert facts["classes"] == ["left", "right"]
    assert facts["train"]["digest_of"] == "labels (content not checked)"
    assert error_of(place, place.runs[-1].name) < 50
    line = place.refused(2, "rerun", "latest", "--current-code", "--data-dir", ".", *TRUST)
    assert "(python:mynets.images:spots) are given by that code, by data.args: leave" in line
    line = place.refused(3, *given[:-1], "data.args={size: three}", *TRUST)
    assert "Spots" in line or "spots" in line
    arrays = ("train", "own.yaml", "data.name=python:mynets.images:arrays", "data.limit_train=null",
              "data.limit_val=null", "train.batch_size=20", "train.epochs=1")  # fmt: skip
    place.run(*arrays, *TRUST)
    assert read_json(place.runs[-1] / "data.json")["train"]["digest_of"] == "content"
    line = place.refused(3, *arrays, "data.image_size=64", *TRUST)
    assert "images are 32 x 32, and data.image_size = 64" in line
