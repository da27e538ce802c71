"""`dgcctl export`, `predict --plan` and `bench --plan`: from a run or a weights file to a network that
is used without PyTorch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import dgc
import dgc.runtime
from dgc.errors import ResourceError, UsageError
from dgc.hub.load_weights import open_file
from dgc.hub.registry import ImageSteps
from dgc.jobs.export import enough_memory, steps_for
from dgc.jobs.predict import predict
from dgc.kernels.cpu import library
from dgc.models import create_model
from dgc.recipe.load import dump_recipe, load_recipe
from dgcctl.cli.main import main
from tests.waiting import GUARD

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["model.stages=[1, 1]", "model.growth=[8, 16]"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A weights file and its recipe."""
    folder = tmp_path_factory.mktemp("weights")
    recipe = load_recipe(ROOT / "recipes" / "cifar10_h4.yaml", SMALL)
    (folder / "small.yaml").write_text(dump_recipe(recipe))
    torch.manual_seed(0)
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    dgc.set_progress(model, 1.0)
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors", folder / "small.yaml"


@pytest.fixture(scope="module")
def plan(weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("export") / "model.dgc"
    words = ["export", str(weights[0]), "--recipe", str(weights[1]), "-o", str(file)]
    assert main([*words, "--size", "32", "--size", "40x48", "--licence", "MIT"]) == 0
    return file


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_an_exported_file_says_what_it_is(plan: Path, weights: tuple[Path, Path]) -> None:
    found = dgc.runtime.load(plan)
    assert [s.image for s in found.shapes] == [(3, 32, 32), (3, 40, 48)]
    assert found.classes[:2] == ("airplane", "automobile")
    how = found.preprocessing
    assert how is not None
    assert (how.image_size, how.channels) == (32, 3)
    assert found.origin["licence"] == "MIT"
    assert found.origin["dgcctl"] == dgc.__version__
    assert len(found.origin["weights_sha256"]) == 64
    assert found.origin["precision"] == "float32"
    assert "averaged" not in found.origin  # bare weights: nobody says


def test_a_plan_predicts_what_the_network_predicts(
    plan: Path, weights: tuple[Path, Path], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", "--plan", str(plan), str(photo), "--json", "--top", "3"]) == 0
    found = json.loads(capsys.readouterr().out)["images"][0]
    opened = open_file(weights[0], load_recipe(weights[1]))
    wanted = predict(opened, dgc.runtime.load(plan).classes, [photo], 3)[0]
    assert [row["name"] for row in found["classes"]] == [row["name"] for row in wanted["classes"]]
    chances = [[row["probability"] for row in side["classes"]] for side in (found, wanted)]
    assert np.allclose(chances[0], chances[1], atol=1e-5)


NO_TORCH = """
import sys
from dgcctl.cli.main import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was loaded"
sys.exit(code)
"""


def test_predict_and_bench_of_a_plan_load_no_torch(plan: Path, photo: Path) -> None:
    for words in (
        ["predict", "--plan", plan, photo],
        ["bench", "--plan", plan, "--budget", "0.2", "--threads", "1", "--threads", "2"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", NO_TORCH, *words],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert "loaded in" in done.stdout
    assert "MB in memory" in done.stdout


def test_an_export_for_other_sizes_prepares_image_files_for_one_of_them(
    weights: tuple[Path, Path], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(weights[0]), "--recipe", str(weights[1])]
    assert main([*words, "-o", f"{tmp_path}/a.dgc", "--size=40x48", "--size=40"]) == 0
    assert "image files become 40 x 40 pixels, in the training 32" in capsys.readouterr().err
    assert main(["predict", "--plan", f"{tmp_path}/a.dgc", str(photo)]) == 0
    assert main([*words, "-o", f"{tmp_path}/b.dgc", "--size=40x48"]) == 0
    assert "no --size is square" in capsys.readouterr().err
    assert main(["predict", "--plan", f"{tmp_path}/b.dgc", str(photo)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: b.dgc: does not say how an image is prepared")


def test_the_share_of_the_image_that_is_seen_stays_at_another_size() -> None:
    how = ImageSteps(256, 224, (0, 0, 0), (1, 1, 1))
    assert steps_for([(224, 224), (96, 96)], how) == how
    found = steps_for([(320, 256), (112, 112)], how)
    assert found == ImageSteps(128, 112, (0, 0, 0), (1, 1, 1))
    assert steps_for([(32, 32)], ImageSteps(None, 40, (0, 0, 0), (1, 1, 1))).resize is None


# What a plan file's commands may import, with what these stand on: all else is as if not installed.
LITTLE = """
import sys
ALLOWED = {"dgc", "dgcctl", "numpy", "PIL", "typer", "rich", "markdown_it", "mdurl", "pygments",
           "shellingham", "click", "annotated_doc", "typing_extensions", "pydantic", "pydantic_core",
           "typing_inspection", "annotated_types"}
class Installed:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        known = top in ALLOWED or top in sys.stdlib_module_names or top[0] == "_"
        return self.finder.find_spec(name, path, target) if known else None
sys.meta_path[:] = map(Installed, sys.meta_path)
from dgcctl.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_predict_and_bench_of_a_plan_need_numpy_pillow_and_typer_alone(
    plan: Path, photo: Path
) -> None:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", LITTLE, *map(str, words)],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD,
        )  # fmt: skip

    told = run("predict", "--plan", plan, photo)
    assert told.returncode == 0, told.stderr
    assert photo.name in told.stdout
    found = json.loads(run("predict", "--plan", plan, photo, "--json").stdout)
    assert len(found["images"][0]["classes"]) == 5
    timed = run("bench", "--plan", plan, "--budget", "0.1")
    assert timed.returncode == 0, timed.stderr
    assert "loaded in" in timed.stdout
    refused = run("doctor")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: this needs the package psutil, which is not installed: `pip install dgcctl`"
        " installs all that its commands need\n"
    )


def test_unreadable_images_are_named_and_the_others_answered(
    plan: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("<html>")
    assert main(["predict", "--plan", str(plan), str(bad), str(photo)]) == 3
    said = capsys.readouterr()
    assert "an HTML page" in said.err
    assert photo.name in said.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["export", "-o", "x.dgc"], "no network was named: give one of RUN, FILE, --pretrained"),
        (["export", "a", "--pretrained", "b", "-o", "x.dgc"], "two networks were named"),
        (["export", "latest"], "-o FILE is missing"),
        (
            ["predict", "--plan", "x.dgc", "--run", "r", "i.png"],
            "--plan and --run exclude each other",
        ),
        (["bench", "--plan", "x.dgc", "--layers"], "--plan measures a file by itself"),
        (
            ["export", "latest", "--onnx", "-o", "x.dgc"],
            "-o x.dgc: ONNX would be written: name it x.onnx, or leave out --onnx and --pt2",
        ),
        (
            ["export", "latest", "--pt2", "-o", "a.b/x.ONNX"],
            "-o a.b/x.ONNX: a file for torch.export.load would be written: name it x.pt2, or say --onnx",
        ),
        (
            ["export", "latest", "-o", "x.pt2"],
            "-o x.pt2: a plan file would be written: name it x.dgc, or say --pt2",
        ),
        (
            ["export", "absent.dgc", "-o", "x.dgc"],
            "absent.dgc: no such file: give a run or a weights file",
        ),
        (
            ["predict", "--plan", "x.dgc", "--ema", "i.png"],
            "--ema belongs to --run: a plan file holds one set of weights",
        ),
        (
            ["predict", "--plan", "x.dgc", "--step", "best", "i.png"],
            "--step belongs to --run: a plan file holds one set of weights",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_an_export_is_never_overwritten_and_a_bad_size_leaves_nothing(
    plan: Path, weights: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(weights[0]), "--recipe", str(weights[1])]
    assert main([*words, "-o", str(plan)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "-o", str(tmp_path / "x.dgc"), "--size", "32x"]) == 2
    assert "--size 32x: should be a number or HxW" in capsys.readouterr().err
    for word in ("100000", "0", "32x65537"):
        assert main([*words, "-o", str(tmp_path / "x.dgc"), "--size", word]) == 2
        line = f"error: --size {word}: sides should be 1 to 65,536\n"
        assert capsys.readouterr().err == line
    assert main([*words, "-o", str(tmp_path / "x.dgc"), "--size", "1"]) == 2
    assert "no plan can be made of this network" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_as_a_source_is_told_what_it_is_for(
    plan: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["export", str(plan), "-o", str(tmp_path / "x.dgc")],
        ["predict", "--checkpoint", str(plan), str(photo)],
    ):
        assert main(words) == 4
        assert capsys.readouterr().err == (
            f"error: {plan}: looks like a plan file, not a PyTorch checkpoint; `dgcctl predict --plan`"
            " runs it; else name the run or weights that it was made of\n"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_want_of_memory_is_a_line_with_what_to_do(error: Exception) -> None:
    of_the_engine = UsageError("no plan can be made of this network")
    of_the_engine.__cause__ = error
    line = "not enough memory to make a file for images of 9000 x 8000: ask for smaller ones"
    for one in (error, of_the_engine):
        with pytest.raises(ResourceError, match=line), enough_memory([(9000, 8000)]):
            raise one
    with pytest.raises(UsageError, match="another"), enough_memory([(1, 1)]):
        raise UsageError("another")


def test_bench_says_what_it_measures_while_it_does(
    plan: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "--plan", str(plan), "--budget", "0.1", "--batch", "2", "--json"]
    assert main([*words, "--threads", "1", "--threads", "2"]) == 0
    said = capfd.readouterr()
    assert said.err.splitlines() == [
        f"measuring model.dgc: threads {n}, batch 2, 0.1 s" for n in (1, 2)
    ]
    assert len(json.loads(said.out)["rows"]) == 2


def test_bench_of_a_plan_without_memory_or_place_is_one_line(
    plan: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    many, more_than_counted = 1 << 40, 1 << 60  # no machine has the memory
    words = [sys.executable, "-m", "dgc.runtime.bench", str(plan), "--seconds", "0.1"]
    for more, code, line in (
        (["--batch", str(many)], 7, f"not enough memory for {many} images at once: ask for a"),
        (["--batch", str(more_than_counted)], 7, "1152921504606846976 images at once"),
        (["--json", str(tmp_path / "absent" / "x")], 2, "absent/x: no such file or directory"),
    ):
        done = subprocess.run(
            [*words, *more], cwd=ROOT, capture_output=True, text=True, check=False, timeout=GUARD
        )
        assert done.returncode == code, done.stderr
        (last,) = [x for x in done.stderr.splitlines() if not x.startswith("measuring")]
        assert last.startswith("error: ")
        assert line in last


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:99] + bytes([b[99] ^ 1]) + b[100:]]
)
def test_a_damaged_plan_ends_with_4(
    damage: object, plan: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.dgc"
    bad.write_bytes(damage(plan.read_bytes()))  # type: ignore[operator]
    assert main(["predict", "--plan", str(bad), str(photo)]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert str(bad) in said.err


def test_the_three_exports_name_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    for words, others in (
        (["export"], ["ckpt export", "runs export"]),
        (["ckpt", "export"], ["dgcctl export", "runs export"]),
        (["runs", "export"], ["dgcctl export", "ckpt export"]),
    ):
        main([*words, "--help"])
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert all(other in said for other in others), said
