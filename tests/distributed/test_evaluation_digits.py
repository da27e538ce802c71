"""An evaluation says the same to the last bit, however many images are loaded at once, by how many
workers and ranks; and a network that answers NaN gets no figure.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import dgc
from dgc.data.chunks import chunked
from dgc.errors import ExitCode
from dgc.jobs import evaluate
from dgc.layers import record_gates
from dgc.models import create_model
from dgc.recipe.load import dump_recipe, parse_recipe
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.train.main import run_training
from dgc.train.ranks import Ranks
from dgc.train.session import Options
from dgc.train.signals import Signals
from tests.distributed import evaluations
from tests.distributed.test_two_ranks import free_port
from tests.faults.training import RECIPE, ROOT, logged, make_run, train
from tests.waiting import wait_for_all

ALONE = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
IMAGES = 150  # three chunks, the last one short


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small network at home among its images: BatchNorm has seen them, every gate has something
    to choose from.
    """
    root = tmp_path_factory.mktemp("evaluations")
    wide = RECIPE.replace("growth: [4, 4, 4]", "growth: [8, 16, 32]").replace(
        "limit_val: 30", f"limit_val: {IMAGES}"
    )
    recipe = parse_recipe(wide, "r.yaml")
    torch.manual_seed(0)
    model = create_model(recipe.model.name, **recipe.model.kwargs())
    for _ in range(20):
        model(torch.randn(32, 3, 32, 32))
    dgc.set_progress(model, 1.0)
    save_file(model.state_dict(), root / "w.safetensors")
    (root / "r.yaml").write_text(dump_recipe(recipe))
    return root


@pytest.fixture(scope="module")
def one_rank(folder):
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield evaluations.all_of_them(folder, ALONE)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def by_engine(found, engine):
    return {name: figures for name, figures in found.items() if name.endswith(engine)}


@pytest.mark.parametrize("engine", ["eager", "auto"])
def test_same_digits_for_any_number_loaded_at_once_and_any_workers(one_rank, engine):
    found = by_engine(one_rank, engine)
    first = next(iter(found.values()))
    assert first["samples"] == IMAGES
    assert 0 < first["loss"] < 10
    assert {name: figures for name, figures in found.items() if figures != first} == {}


def test_same_digits_on_two_ranks(folder, one_rank):
    env = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
    }
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.distributed.evaluations", str(folder)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in (0, 1)
    ]
    wait_for_all(processes)
    assert json.loads((folder / "2.json").read_text()) == one_rank


def trained(folder, batch):
    folder.mkdir()
    recipe = RECIPE.replace("batch_size: 16", f"batch_size: {batch}").replace(
        "epochs: 3", "epochs: 1"
    )
    (folder / "recipe.yaml").write_text(recipe.replace("limit_val: 30", "limit_val: 70"))
    run_training(RunDir(folder), Options(), Signals())
    return RunDir(folder)


def test_the_evaluation_of_a_training_too(tmp_path):
    """Figures and gate map, the padding of the last chunk left out of both."""
    told = []
    for batch in (1, 50, 1000):
        run = trained(tmp_path / str(batch), batch)
        row = {
            key: value for key, value in logged(run, "eval")[0].items() if key not in ("t", "crc")
        }
        told.append((row, read_json(run.metrics), read_json(run.gates / "epoch-0001.json")))
        assert read_json(run.env)["evaluation_chunk"] == 64
    assert told[0] == told[1] == told[2]
    shares = [head["most"][0][1] for layer in told[0][2]["layers"] for head in layer["heads"]]
    # of 70 images, not of 128
    assert all((share * 70) == pytest.approx(round(share * 70)) for share in shares)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_records_what_its_checkpoint_answers(ranks, tmp_path):
    """On two ranks as well, where each one's BatchNorms saw other images in the last step."""
    averaged = ("train: {epochs: 3,", "train: {epochs: 1, ema_decay: 0.5,")
    run = make_run(tmp_path / "run", ("limit_val: 30", f"limit_val: {IMAGES}"), averaged)
    done = train(run, ranks=ranks)
    assert done.returncode == 0, done.stderr
    recorded = logged(run, "eval")[-1]
    for extra, prefix in (([], ""), (["--ema"], "ema_")):
        out = tmp_path / f"{prefix}out.json"
        given = ["--run-dir", str(run.path), "--device=cpu", "--json", str(out), *extra]
        assert evaluate.main(given) == 0
        found = json.loads(out.read_text())
        for name in ("top1_error", "loss"):
            assert found[name] == recorded[prefix + name]


@pytest.mark.parametrize(
    "sizes", [[150], [1] * 150, [7] * 21 + [3], [100, 50], [64, 64, 22], [63, 65, 22], [64]]
)
def test_chunks_hold_the_same_images_at_the_same_place(sizes):
    images = torch.arange(sum(sizes)).view(-1, 1, 1, 1).float()
    labels = torch.arange(sum(sizes))
    chunks = list(chunked(zip(images.split(sizes), labels.split(sizes), strict=True), 64))
    assert [len(chunk.images) for chunk in chunks] == [64] * -(-sum(sizes) // 64)
    assert torch.equal(torch.cat([chunk.labels for chunk in chunks]), labels)
    flat = torch.cat([chunk.images for chunk in chunks]).flatten()
    assert torch.equal(flat[: len(labels)], images.flatten())
    assert (flat[len(labels) :] == images.flatten()[-1]).all()


def test_gates_are_counted_without_the_padding(folder):
    from dgc.train.evaluation import evaluate as measure

    recipe = parse_recipe((folder / "r.yaml").read_text(), "r.yaml")
    model = create_model(recipe.model.name, **recipe.model.kwargs()).double()
    model.load_state_dict(load_file(folder / "w.safetensors"))
    dgc.set_progress(model, 1.0)
    images, labels = torch.randn(70, 3, 32, 32, dtype=torch.float64), torch.arange(70) % 10
    with record_gates(model.eval()) as wanted, torch.no_grad():
        model(images)
    with record_gates(model) as found:
        measure(model, [(images, labels)], 70, ALONE)
    for name, record in wanted.items():
        assert found[name].samples == 70
        assert torch.equal(found[name].selected, record.selected), name


# --- NaN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_network_that_answers_nan_gets_no_figure(folder, tmp_path, capsys, bad):
    weights = load_file(folder / "w.safetensors")
    weights["classifier.bias"][3] = bad
    save_file(weights, tmp_path / "w.safetensors")
    out = tmp_path / "out.json"
    asked = [
        f"--weights={tmp_path / 'w.safetensors'}",
        f"--recipe={folder / 'r.yaml'}",
        "--json",
        str(out),
    ]
    for engine in ("eager", "auto"):
        assert evaluate.main([*asked, "--device=cpu", f"--engine={engine}"]) == ExitCode.DIVERGED
        said = capsys.readouterr().err
        assert said.startswith(
            f"error: the network answers NaN or Inf on {IMAGES} of {IMAGES} images, so no error can"
        )
        assert said.count("\n") == 1
        assert not out.exists()


def test_one_bad_image_is_enough(folder):
    from dgc.errors import DivergedError
    from dgc.train.evaluation import evaluate as measure

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
    images = torch.zeros(70, 3, 2, 2)
    images[69, 0, 0, 0] = torch.inf  # the padding repeats it, and is not counted
    with pytest.raises(DivergedError, match="NaN or Inf on 1 of 70 images"):
        measure(model, [(images, torch.zeros(70, dtype=torch.int64))], 70, ALONE)
