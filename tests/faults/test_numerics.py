"""NaN and Inf (row 39): nothing is updated from the bad step on, all ranks end together, and the
line says where.
"""

import math
import re
import subprocess
import sys

import pytest
import safetensors.numpy
import torch

from dgc.data.rng import order
from dgc.errors import ExitCode
from dgc.recipe.load import parse_recipe
from dgc.run import checkpoint_store
from dgc.run.status import read_status
from dgc.train.ranks import Ranks
from dgc.train.session import make_updater
from tests.faults.training import RECIPE, ROOT, environment, logged, make_run, train
from tests.waiting import GUARD

CPU = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
# the last batch of the first epoch holds the poisoned sample; checkpoints stand at 0 and 4
SAMPLE_STEP = 6


def poisoned_sample() -> int:
    return int(order(3, 0, 44)[-1])


def run_poisoned(run, mode: str, ranks: int = 1, *more: str):
    module = [
        "-m",
        "tests.faults.poisoned",
        mode,
        str(poisoned_sample()),
        "--run-dir",
        str(run.path),
        *more,
    ]
    launcher = (
        ["-m", "dgc.train.launch", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    )
    return subprocess.run(
        [sys.executable, *launcher, *module],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
    )


def check_end(run, done, rank: int) -> None:
    assert done.returncode == ExitCode.DIVERGED
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    found = re.fullmatch(
        r"error: diverged at step (\d+) \(epoch 0\) on rank (\d): loss \S+, gradient norm nan, lr"
        r" [\d.]+, "
        r"samples ([\d, ]+); no update was made from that step on; last good: step-(\d+); a lower"
        r" optim.lr may help",
        lines[0],
    )
    assert found, lines[0]
    assert (int(found[1]), int(found[2]), int(found[4])) == (SAMPLE_STEP, rank, 4)
    assert str(poisoned_sample()) in found[3].split(", ")
    newest = checkpoint_store.newest_valid(run)
    assert newest is not None
    assert newest[0].step == 4
    for file in ("model.safetensors", "optim.safetensors"):
        for name, value in safetensors.numpy.load(newest[1][file]).items():
            assert math.isfinite(float(abs(value).max())), name
    assert [row["step"] for row in logged(run, "step")] == list(range(1, SAMPLE_STEP + 1))


@pytest.mark.parametrize("mode", ["loss", "grads"])
def test_one_poisoned_sample(mode, tmp_path, fault_table):
    run = make_run(tmp_path / "run")
    with (
        fault_table.case(
            39, f"NaN only in {mode}: stopped before the update, no checkpoint of it"
        ) as case,
        case.run(),
    ):
        check_end(run, run_poisoned(run, mode), rank=0)


def test_on_one_rank_of_two(tmp_path, fault_table):
    run = make_run(tmp_path / "run")
    with (
        fault_table.case(39, "NaN on one rank of two: both end with 9, the rank is named") as case,
        case.run(),
    ):
        check_end(run, run_poisoned(run, "loss", ranks=2), rank=1)


NO_ANSWER = (
    "the network answers NaN or Inf on 1 of 30 images, so no error can be told: its weights or"
    " BatchNorm statistics are untrained, have diverged or are damaged"
)


def no_figure(step, epoch):
    return (
        f"the evaluation after step {step} (epoch {epoch}) has no figure: {NO_ANSWER}; the training"
        " goes on, for its own numbers are finite"
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_evaluations_that_meet_nan(ranks, tmp_path, fault_table):
    """argmax of NaN is no answer: no figure, nothing kept as best. What was trained is kept."""
    run = make_run(tmp_path / "run")
    with (
        fault_table.case(
            39, f"NaN only in evaluation, {ranks} rank(s): no figure, no best, weights kept"
        ) as case,
        case.run(),
    ):
        for more in ((), ("--resume",)):  # a resumed run evaluates again, and ends as it did
            done = run_poisoned(run, "evaluation", ranks, *more)
            assert done.returncode == ExitCode.DIVERGED
            lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            assert lines == [
                f"error: diverged by the last evaluation, after step 18 (epoch 2): {NO_ANSWER}; last"
                " checkpoint: step-000018; a lower optim.lr or more epochs may help"
            ]
            assert logged(run, "eval") == []
            for path in (run.metrics, run.best, run.verdict):
                assert not path.exists()
            assert str(read_status(run).state) == "failed"
        texts = [row["text"] for row in logged(run, "alert")]
        assert [text for text in texts if "no figure" in text] == [
            no_figure(6, 0),
            no_figure(12, 1),
        ]
        newest = checkpoint_store.newest_valid(run)
        assert newest is not None
        assert newest[0].step == 18


def test_an_evaluation_that_recovers(tmp_path, fault_table):
    run = make_run(tmp_path / "run")
    with (
        fault_table.case(39, "NaN in the first evaluation alone: warned, and trained on") as case,
        case.run(),
    ):
        done = run_poisoned(run, "first-evaluation")
        assert done.returncode == 0, done.stderr
        assert [row["text"] for row in logged(run, "alert")] == [no_figure(6, 0)]
        assert [row["step"] for row in logged(run, "eval")] == [12, 18]
        assert str(read_status(run).state) == "done"


def test_exploding_learning_rate(tmp_path, fault_table):
    run = make_run(tmp_path / "run", ("lr: 0.05", "lr: 1.0e30"))
    with fault_table.case(39, "exploding learning rate") as case, case.run():
        done = train(run)
        assert done.returncode == ExitCode.DIVERGED
        assert re.search(r"on rank 0: loss \S+, gradient norm \S+, lr \S+e\+29", done.stderr), (
            done.stderr
        )
        bad = logged(run, "step")[-1]
        assert bad["loss"] is None or bad["loss"] > 1e9
        assert checkpoint_store.list_checkpoints(run)[-1].step < bad["step"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_parameters_stay_from_the_bad_step_on(dtype, amp):
    """The guard itself: one bad batch, then good ones, and not a bit of the parameters or the
    momentum moves.
    """
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10)).to(dtype)
    updater = make_updater(parse_recipe(RECIPE, "recipe"), CPU, model, amp=amp)
    images, labels = torch.randn(4, 3, 2, 2, dtype=dtype), torch.arange(4)
    moved = model[1].weight.clone()
    updater.step(images, labels, 0.1, 0.0, 4)
    assert not torch.equal(moved, model[1].weight)
    before = [
        value.clone()
        for value in (*model.parameters(), *updater.optimizer.state["momentum"].values())
    ]
    rows = [
        updater.step(batch, labels, 0.1, 0.0, 4) for batch in (images * torch.inf, images, images)
    ]
    assert [float(row[3]) for row in rows] == [1, 1, 1]
    after = [*model.parameters(), *updater.optimizer.state["momentum"].values()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
