"""`python -m dgc.jobs.evaluate` on a run: the figures that the training itself wrote, and what is
asked for besides.
"""

import pytest
import torch

from dgc.errors import ExitCode
from dgc.jobs import evaluate
from dgc.kernels.cpu import available
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.train.evaluation import score, summarize
from dgc.train.main import run_training
from dgc.train.save import describe_changes
from dgc.train.session import Options
from dgc.train.signals import Signals
from tests.faults.training import RECIPE


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.yaml").write_text(RECIPE.replace("epochs: 3", "epochs: 2"))
    run_training(RunDir(folder), Options(), Signals())
    return RunDir(folder)


def ask(run: RunDir, out, *arguments: str) -> dict:
    assert (
        evaluate.main(
            ["--run-dir", str(run.path), "--json", str(out), "--device", "cpu", *arguments]
        )
        == 0
    )
    return read_json(out)


def test_agrees_with_the_training(run, tmp_path):
    found, metrics = ask(run, tmp_path / "out.json", "--per-class"), read_json(run.metrics)
    for key in ("top1_error", "top5_error", "loss"):
        assert found[key] == metrics[key]
    assert found["macs"]["dense"] == metrics["macs_dense"]
    assert found["samples"] == 30
    classes = found["per_class"]
    assert sum(row["samples"] for row in classes) == 30
    wrong = sum(row["samples"] * row["top1_error"] / 100 for row in classes if row["samples"])
    assert 100 * wrong / 30 == pytest.approx(found["top1_error"])


def test_another_checkpoint_and_fewer_images(run, tmp_path):
    found = ask(
        run,
        tmp_path / "out.json",
        "--step",
        "best",
        "--limit",
        "20",
        "--plot",
        str(tmp_path / "plot.png"),
    )
    assert found["samples"] == 20
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(not available(), reason="the native kernels are not built here")
def test_native_engine_agrees(run, tmp_path):
    eager, native = (
        ask(run, tmp_path / "out.json", "--engine", name) for name in ("eager", "native")
    )
    assert native["engine"] == "native"
    assert native["loss"] == pytest.approx(eager["loss"], rel=1e-4)


def test_errors_are_one_line(run, tmp_path, capsys):
    code = evaluate.main(
        [
            "--run-dir",
            str(tmp_path / "none"),
            "--json",
            str(tmp_path / "out.json"),
            "--device",
            "cpu",
        ]
    )
    assert code != ExitCode.DONE
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_to_hold_the_figures_against_is_said_before_they_are_measured(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(evaluate, "timed", lambda *_: pytest.fail("measured all the same"))
    out = tmp_path / "out.json"
    code = evaluate.main(
        ["--run-dir", str(run.path), "--json", str(out), "--device", "cpu", "--check"]
    )
    assert code == ExitCode.USAGE
    said = capsys.readouterr().err
    assert (
        said == "error: --check, but nothing is expected: nothing was measured; leave --check out\n"
    )
    assert not out.exists()


def test_score_counts_by_hand():
    """Three samples of six classes: right; second guess; sixth guess."""
    logits = torch.tensor([[9.0, 1, 2, 3, 4, 5], [8.0, 9, 1, 2, 3, 4], [5.0, 4, 3, 2, 1, 0]])
    figures = summarize(score(logits, torch.tensor([0, 0, 5]))[None])
    assert figures.top1_error == pytest.approx(200 / 3)
    assert figures.top5_error == pytest.approx(100 / 3)
    assert figures.loss == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 5])))
    )


def test_changes_are_told_in_words():
    before = {
        "recipe": RECIPE,
        "data": "a" * 64,
        "code": "b" * 64,
        "world_size": 1,
        "torch": "2.10.0",
        "device": "cpu (x)",
        "cpu_capability": "AVX2",
        "kernels": "avx2",
        "threads": 2,
        "packages": {"numpy": "1"},
    }
    assert (
        describe_changes(
            before, {**before, "threads": 1, "recipe": RECIPE.replace("workers: 0", "workers: 2")}
        )
        == []
    )
    assert describe_changes(before, {**before, "kernels": "none"}) == ["kernels was avx2, is none"]
    now = {
        **before,
        "code": "c" * 64,
        "torch": "2.11.0",
        "recipe": RECIPE.replace("lr: 0.05", "lr: 0.1"),
    }
    assert describe_changes(before, {**now, "packages": {"numpy": "2"}}) == [
        "optim.lr was 0.05, is 0.1",
        "torch was 2.10.0, is 2.11.0",
        f"code digest was {'b' * 12}, is {'c' * 12}",
        "numpy was 1, is 2",
    ]
