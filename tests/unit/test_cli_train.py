"""`dgcctl train` and `resume` with the real trainer, as a user starts them: a small network, a few
steps.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dgc.recipe.load import load_recipe
from dgc.run.events import EventKind, read_events
from dgc.run.paths import RunDir
from dgc.run.status import read_status
from dgcctl.core.runs import listing
from tests.waiting import GUARD, wait_for

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "model.stages=[1,1]",
    "model.growth=[8,8]",
    "train.batch_size=16",
    "train.epochs=2",
    "train.threads=1",
    "eval.batch_size=20",
    "data.limit_train=64",
    "data.limit_val=20",
)
LONG = (*TINY, "train.epochs=4000")
STEPS = 8


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("DGCCTL_")}
    return {
        **clean,
        "DGCCTL_RUNS_DIR": str(tmp_path / "runs"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


Dgcctl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def dgcctl(environment: dict[str, str], tmp_path: Path) -> Dgcctl:
    def call(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dgcctl", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=GUARD,
        )

    return call


def start(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dgcctl", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)


def only_run(folder: Path) -> RunDir:
    (run,) = listing.iterate(folder / "runs")
    return run


def wait_for_step(folder: Path, step: int, by: subprocess.Popen[str]) -> RunDir:
    """The one run in a folder, once its log holds a step."""

    def reached() -> list[RunDir]:
        return [
            run
            for run in listing.iterate(folder / "runs")
            if any(
                event["kind"] == EventKind.STEP and event["step"] >= step
                for event in read_events(run)
            )
        ]

    wait_for(reached, f"step {step}", by=by, pause=0.05)
    return reached()[0]


def no_process_of(run: RunDir) -> bool:
    named = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return not any(str(run.path) in argument for command in named for argument in command)


def errors_in(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_training_says_what_it_came_to_and_leaves_a_run(dgcctl: Dgcctl, tmp_path: Path) -> None:
    done = dgcctl("train", "demo", *TINY)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    shown = dict(
        line.split(maxsplit=1)
        for line in done.stdout.splitlines()
        if not line.startswith(("MACs", "top"))
    )
    assert shown["run"] == run.id
    assert shown["state"] == f"done (epoch 2/2, step {STEPS}/{STEPS})"
    assert shown["where"] == str(run.path)
    assert [line for line in done.stderr.splitlines() if line.startswith("epoch 2/2  top-1 error ")]
    argv = json.loads(run.argv.read_text())
    assert argv["argv"][:3] == ["dgcctl", "train", "demo"]
    assert argv["overrides"] == list(TINY)
    assert load_recipe(run.recipe).data.limit_train == 64
    assert dgcctl("resume", "latest").stderr.startswith(f"error: run {run.id} is done: ")


def test_json_is_one_document_and_quiet_says_nothing(dgcctl: Dgcctl, tmp_path: Path) -> None:
    done = dgcctl("train", "demo", *TINY, "train.max_steps=2", "--json", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema_version"] == 1
    assert document["run"]["state"] == "done"
    assert document["run"]["step"] == 2
    assert document["metrics"]["macs_dense"] > document["metrics"]["macs_promised"]


def test_ctrl_c_finishes_the_step_saves_and_resume_goes_on(
    environment: dict[str, str], dgcctl: Dgcctl, tmp_path: Path
) -> None:
    process = start(environment, tmp_path, "train", "demo", *LONG)
    run = wait_for_step(tmp_path, 3, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=GUARD)
    assert process.returncode == 130
    assert out == ""
    assert len(errors_in(err)) == 1
    assert "stopping after this step and saving; once more leaves at once\n" in err
    status = read_status(run)
    assert (status.state, status.exit_code) == ("stopped", 130)
    saved = json.loads(run.last.read_text())["step"]
    assert saved == status.step >= 3
    assert no_process_of(run)
    again = start(environment, tmp_path, "resume", run.id[-6:])
    wait_for_step(tmp_path, saved + 3, again)
    again.send_signal(signal.SIGTERM)
    _, err = again.communicate(timeout=GUARD)
    assert again.returncode == 75, err
    assert read_status(run).step > saved
    assert [event["step"] for event in read_events(run) if event["kind"] == EventKind.RESUME] == [
        saved
    ]
    third = dgcctl("train", "demo", *LONG, "optim.lr=0.01", "train.max_steps=2", "--resume")
    assert third.returncode == 0
    assert (
        f"run {run.id} is unfinished too, but differs (optim.lr: 0.1 -> 0.01): left as it is"
        in third.stderr
    )
    assert len(list(listing.iterate(tmp_path / "runs"))) == 2


def test_resume_of_a_recipe_finds_its_unfinished_run(
    environment: dict[str, str], dgcctl: Dgcctl, tmp_path: Path
) -> None:
    process = start(environment, tmp_path, "train", "demo", *LONG, "train.max_steps=40")
    run = wait_for_step(tmp_path, 2, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=GUARD)
    planned = dgcctl("train", "demo", *LONG, "train.max_steps=40", "--resume", "--dry-run")
    assert f"would go on with {run.path} and start: " in planned.stderr
    assert planned.stderr.rstrip().endswith("--resume")
    done = dgcctl("train", "demo", *LONG, "train.max_steps=40", "--resume")
    assert done.returncode == 0, done.stderr
    assert only_run(tmp_path).id == run.id
    assert read_status(run).step == 40


def test_a_trainer_that_is_killed_is_named_with_the_way_on(
    environment: dict[str, str], tmp_path: Path
) -> None:
    process = start(environment, tmp_path, "train", "demo", *LONG)
    run = wait_for_step(tmp_path, 2, process)
    os.kill(read_status(run).pid, signal.SIGKILL)
    _, err = process.communicate(timeout=GUARD)
    assert process.returncode == 1  # no word of memory where nobody counted such a kill
    expected = (
        f"error: the trainer was killed by signal 9: see {run.log}, then `dgcctl resume {run.id}`"
    )
    assert errors_in(err) == [expected]
    assert listing.read_run(run).state == "died"


def test_two_ranks_and_the_death_of_one(environment: dict[str, str], tmp_path: Path) -> None:
    process = start(environment, tmp_path, "train", "demo", *LONG, "--nproc-per-node", "2")
    run = wait_for_step(tmp_path, 2, process)
    first = psutil.Process(read_status(run).pid)
    agent = first.parent()
    assert agent is not None
    (second,) = [
        child
        for child in agent.children()
        if child.pid != first.pid and "dgc.train" in child.cmdline()
    ]
    second.kill()
    _, err = process.communicate(timeout=GUARD)
    assert process.returncode == 10
    (line,) = errors_in(err)
    assert line.startswith("error: rank 1 killed by signal 9 at step ")
    assert no_process_of(run)


def test_data_that_is_not_there_is_one_line_and_leaves_nothing(
    dgcctl: Dgcctl, tmp_path: Path
) -> None:
    done = dgcctl(
        "train", "cifar10_h4", "--data-dir", str(tmp_path / "nowhere"), DGCCTL_OFFLINE="1"
    )
    assert done.returncode == 3
    (line,) = errors_in(done.stderr)
    assert str(tmp_path / "nowhere") in line
    assert "dgcctl data download cifar10" in line
    assert list(listing.iterate(tmp_path / "runs")) == []
    assert not (tmp_path / "nowhere").exists()


def test_a_bad_recipe_is_refused_before_anything_is_made(dgcctl: Dgcctl, tmp_path: Path) -> None:
    done = dgcctl("train", "demo", "optim.lrr=0.1", "train.batch_size=0")
    assert done.returncode == 2
    assert len(errors_in(done.stderr)) == 2
    assert "did you mean optim.lr?" in done.stderr
    done = dgcctl("train", "demo", "--nproc-per-node", "3")
    assert done.returncode == 2
    assert "train.batch_size = 64 cannot be shared by 3 processes" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_prints_the_recipe_and_makes_nothing(dgcctl: Dgcctl, tmp_path: Path) -> None:
    done = dgcctl("train", "demo", "optim.lr=1e-2", "--nproc-per-node", "2", "--dry-run")
    assert done.returncode == 0
    (tmp_path / "again.yaml").write_text(done.stdout)
    assert load_recipe(tmp_path / "again.yaml").optim.lr == 0.01
    assert (
        "dgc.train.launch --max-restarts=0 --standalone --nproc-per-node=2 -m dgc.train"
        in done.stderr
    )
    assert not (tmp_path / "runs").exists()


def test_check_ends_with_11_where_a_target_is_missed(dgcctl: Dgcctl, tmp_path: Path) -> None:
    shown = dgcctl("recipes", "show", "demo", *TINY, "train.max_steps=1").stdout
    head, _, rest = shown.partition("expect:")
    expectation = (
        "expect:\n  - metric: top1_error\n    value: 1.0\n    tolerance: 0.5\n    source: a"
        " wish\norigin:"
    )
    (tmp_path / "wish.yaml").write_text(head + expectation + rest.partition("origin:")[2])
    done = dgcctl("train", "wish.yaml", "--check")
    assert done.returncode == 11
    (line,) = errors_in(done.stderr)
    assert "top1_error is " in line
    assert "above 1.00 + 0.50 % (a wish)" in line
    assert "expected 1.00 ± 0.50 % (a wish): missed\n" in done.stdout


def test_detached_training_goes_on_by_itself(dgcctl: Dgcctl, tmp_path: Path) -> None:
    done = dgcctl("train", "demo", *TINY, "--detach")
    assert done.returncode == 0
    run = only_run(tmp_path)
    assert done.stdout == f"{run.id}\n"
    followed = dgcctl("runs", "tail", run.id, "--follow", "-n", "1000")
    assert followed.returncode == 0
    assert followed.stdout.count("  step  ") == STEPS
    assert followed.stdout.splitlines()[-1].split()[1] == "end"
    assert listing.read_run(run).state == "done"


def test_on_a_terminal_one_line_is_rewritten(environment: dict[str, str], tmp_path: Path) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))  # wide enough for every field
    command = [sys.executable, "-m", "dgcctl", "train", "demo", *TINY]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**environment, "TERM": "xterm"},
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait(GUARD) == 0
    os.close(master)
    lines = seen.decode().split("\r")
    assert "\x1b[2Kstarting: loading data and network ..." in lines
    assert any(
        line.startswith("\x1b[2Kepoch ") and "lr 0." in line and "pruned " in line for line in lines
    )
    assert any("epoch 2/2  top-1 error " in line for line in lines)
