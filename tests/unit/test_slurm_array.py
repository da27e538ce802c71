"""Sweeps and searches as Slurm arrays: the script, what is refused, and a task's way with its trial.

On a real Slurm: `make cluster`.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dgc.errors import ExitCode, UsageError
from dgc.run.files import write_json
from dgc.run.lock import lock_path
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, read_status, write_status
from dgcctl.cli.main import main
from dgcctl.core.launch import slurm_array
from dgcctl.core.launch.launcher import is_running
from dgcctl.core.launch.lost_node import free_lost_lock
from dgcctl.core.sweep.grid import parse_axis
from dgcctl.core.sweep.plan import TrialState, open_or_create
from dgcctl.core.sweep.sweep_task import run_trial
from tests.waiting import wait_for

TRAINER = (sys.executable, str(Path(__file__).with_name("fake_trainer.py")))


@pytest.fixture(autouse=True)
def package_is_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def command(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """sbatch and squeue as far as their answers are read; a file says which tasks are queued."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command(folder, "sbatch", f"cat > {tmp_path}/script; echo Submitted batch job 17")
    command(folder, "squeue", f"cat {tmp_path}/queue")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "queue").write_text("")
    return tmp_path


def sweep(folder, *words):
    return main(["sweep", "demo", "seed=0..2", "--runs-dir", str(folder / "runs"), *words])


def test_one_task_a_trial_and_a_second_array_only_after_the_first(slurm, capsys):
    assert sweep(slurm, "--launcher", "slurm", "-j", "2", "--sbatch=--partition=gpu") == 0
    assert "Submitted batch job 17" in capsys.readouterr().out
    lines = (slurm / "script").read_text().splitlines()
    for line in (
        "#SBATCH --array=0-2%2",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --partition=gpu",
        "ARGUMENTS=(0 1 2)",
    ):
        assert line in lines
    assert "-m dgcctl.core.sweep.sweep_task" in lines[-1]
    (slurm / "queue").write_text("17_1\n17_2\n")
    assert sweep(slurm, "--launcher", "slurm") == ExitCode.LOCKED
    assert "2 tasks are still queued or running in Slurm (17_1, 17_2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--launcher", "pbs"), "--launcher pbs: should be local or slurm"),
        (("--sbatch=--x",), "--sbatch: is for --launcher slurm"),
        (("--launcher", "slurm", "--fail-fast"), "--fail-fast: is not for --launcher slurm"),
        (("--launcher", "slurm", "--sbatch", "gpu"), "--sbatch 'gpu': should be one option"),
    ],
)
def test_what_cannot_be_is_one_line(slurm, capsys, words, said):
    assert sweep(slurm, *words) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_without_slurm_nothing_is_noted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Slurm here"):
        slurm_array.start(slurm_array.Array("x", "m", tmp_path, ("0",)))
    assert not (tmp_path / "slurm.json").exists()


def test_a_queue_that_cannot_be_asked_holds_nothing_back(slurm):
    write_json(slurm / "slurm.json", {"job": "17", "tasks": 1})
    command(slurm / "bin", "squeue", "echo slurm_load_jobs error >&2; exit 1")
    assert slurm_array.still_queued(slurm) == []


def planned(folder):
    found = open_or_create(folder, "demo", [], [parse_axis("seed=0,1")])
    return found, found.plan.trials[0]


def test_a_task_trains_its_trial_and_no_other(tmp_path):
    found, trial = planned(tmp_path)
    assert run_trial(found, trial, TRAINER, lambda _: None) == 0
    assert list(found.states().values()) == [TrialState.DONE, TrialState.PENDING]


def test_a_warned_task_ends_as_one_to_be_queued_again(tmp_path):
    found, trial = planned(tmp_path)
    run = found.run_dir(trial)

    def warn():
        wait_for(lambda: is_running(run), "the trial at work", by=None)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=warn)
    thread.start()
    code = run_trial(found, trial, WAITING, lambda _: None)
    thread.join()
    assert code == ExitCode.PREEMPTED


WAITING = (
    sys.executable,
    "-c",
    "import sys, signal, time\n"
    "from pathlib import Path\n"
    "from dgc.run.paths import RunDir\n"
    "from dgc.run.status import State, Status, write_status\n"
    "run = RunDir(Path(sys.argv[2]))\n"
    "def end(*_):\n"
    "    write_status(run, Status(state=State.STOPPED, exit_code=75))\n"
    "    sys.exit(75)\n"
    "signal.signal(signal.SIGUSR1, end)\n"
    "write_status(run, Status(state=State.RUNNING))\n"
    "time.sleep(600)\n",
)


def foreign(tmp_path, age):
    """A run whose owner is another host, with a heartbeat of that age."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    write_json(lock_path(run), {"host": "elsewhere", "boot": "b", "pid": 1, "start_token": 1.0})
    write_status(run, Status(state=State.RUNNING, host="elsewhere", heartbeat=time.time() - age))
    return run


def test_a_lost_nodes_lock_is_freed_and_a_living_ones_never(tmp_path):
    run = foreign(tmp_path, age=1.0)
    assert not free_lost_lock(run)
    assert lock_path(run).exists()
    status = read_status(run)
    status.heartbeat -= 3600
    write_status(run, status)
    assert free_lost_lock(run)
    assert not lock_path(run).exists()
