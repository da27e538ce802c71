"""Starting, stopping and explaining processes; fake trainers stand for the real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dgc.errors import DataError, DgcError, RankError, ResourceError, UsageError
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, read_status, write_status
from dgcctl.core.launch import launcher, outcome
from dgcctl.core.launch import query as asking
from dgcctl.core.launch.launcher import Process, RankOptions
from tests.waiting import GUARD, wait_for, wait_for_file, wait_for_text


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# --- commands -------------------------------------------------------------------------------------


def test_one_process_needs_no_torchrun() -> None:
    assert launcher.module_command("dgc.train", RankOptions()) == [
        sys.executable,
        "-m",
        "dgc.train",
    ]


def test_several_processes_are_started_by_torchrun_without_restarts() -> None:
    command = launcher.module_command("dgc.train", RankOptions(nproc_per_node="2"))
    assert command[1:] == [
        *("-m", "dgc.train.launch", "--max-restarts=0"),
        *("--standalone", "--nproc-per-node=2", "-m", "dgc.train"),
    ]


def test_several_machines_meet_at_an_endpoint() -> None:
    options = RankOptions(
        nproc_per_node="8", nnodes="2", node_rank=1, rdzv_endpoint="head:29500"
    ).options()
    assert options == [
        "--nproc-per-node=8",
        "--nnodes=2",
        "--node-rank=1",
        "--rdzv-endpoint=head:29500",
        "--rdzv-backend=c10d",
    ]


@pytest.mark.parametrize(
    ("ranks", "line"),
    [
        (RankOptions(nproc_per_node="0"), "--nproc-per-node 0: should be a number from 1, or auto"),
        (
            RankOptions(nproc_per_node="two"),
            "--nproc-per-node two: should be a number from 1, or auto",
        ),
        (RankOptions(nnodes="x"), "--nnodes x: should be a number from 1, or MIN:MAX"),
        (
            RankOptions(nnodes="2"),
            "--nnodes 2 needs --rdzv-endpoint HOST:PORT, the same on every machine",
        ),
    ],
)
def test_impossible_ranks_are_refused(ranks: RankOptions, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        ranks.options()
    assert str(caught.value) == line


def test_a_new_run_is_queued_and_has_its_records(tmp_path: Path) -> None:
    run = launcher.create(
        tmp_path / "runs", "demo", "name: demo\n", {"argv": ["dgcctl", "train"], "overrides": []}
    )
    assert run.recipe.read_text() == "name: demo\n"
    assert read_status(run).state == State.QUEUED
    assert json.loads(run.argv.read_text())["argv"] == ["dgcctl", "train"]
    assert "commit" in json.loads(run.git.read_text())


def test_a_folder_that_takes_no_runs_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError) as caught:
        launcher.create(tmp_path / "file" / "runs", "demo", "name: demo\n", {})
    expected = (
        "cannot make a run directory here (not a directory): name another folder with --runs-dir or"
        " DGCCTL_RUNS_DIR"
    )
    assert str(caught.value) == f"{tmp_path / 'file' / 'runs'}: {expected}"


# --- processes ------------------------------------------------------------------------------------

STUBBORN_CHILD = """
import subprocess, sys, time, pathlib
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); "
    "time.sleep(10_000)"],
    stdout=subprocess.PIPE)
child.stdout.readline()
part = pathlib.Path(sys.argv[1] + ".part")
part.write_text(str(child.pid))
part.rename(sys.argv[1])
time.sleep(10_000)
"""


def test_nothing_of_the_group_is_left_not_even_what_ignores_sigterm(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    command = [*python(STUBBORN_CHILD), str(note)]
    with Process(command, output=subprocess.DEVNULL, env=os.environ, tied=True) as process:
        grandchild = int(wait_for_text(note, by=process))
        assert not gone(grandchild)
    assert gone(process.pid)
    wait_for(lambda: gone(grandchild), "the end of the grandchild", by=None)


def test_a_child_is_told_when_its_starter_is_killed(tmp_path: Path) -> None:
    told, ready, pid = tmp_path / "told", tmp_path / "ready", tmp_path / "pid"
    child = (
        "import signal, sys, time, pathlib\nsignal.signal(signal.SIGTERM, lambda *_:"
        f" (pathlib.Path({str(told)!r}).touch(),"
        f" sys.exit(75)))\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(10_000)\n"
    )
    starter = (
        "import os, subprocess, sys, time, pathlib\nfrom dgcctl.core.launch.launcher import"
        f" Process\np = Process([sys.executable, '-c', {child!r}], output=subprocess.DEVNULL,"
        " env=os.environ,"
        f" tied=True)\npathlib.Path({str(pid)!r}).write_text(str(p.pid))\ntime.sleep(10_000)\n"
    )
    parent = subprocess.Popen(python(starter))
    wait_for_file(ready, by=parent)
    parent.kill()
    parent.wait()
    wait_for_file(told, by=None)


def test_signals_for_us_go_to_the_child(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(10_000)\n"
    )
    before = signal.getsignal(signal.SIGUSR1)
    with (
        Process(python(child), output=subprocess.DEVNULL, env=os.environ, tied=True) as process,
        launcher.forwarding(process) as heard,
    ):
        wait_for_file(ready, by=process)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert process.wait(GUARD) == 75
        assert heard.passed == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == before


def test_the_output_of_a_training_is_appended_to_its_log(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.log.write_text("before\n")
    with launcher.start_training(
        run, python("import sys; print('out'); print('err', file=sys.stderr)")
    ) as process:
        assert process.wait(GUARD) == 0
    first, mark, *said = run.log.read_text().splitlines()
    assert first == "before"
    assert outcome.START_MARK in mark
    assert said == ["out", "err"]


# --- why it ended ---------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "20260101T000000Z-demo-aaa111")
    run.path.mkdir()
    return run


def test_a_trainer_that_is_done_has_no_error(run: RunDir) -> None:
    assert outcome.failure(run, 0) is None


def test_its_own_account_comes_first(run: RunDir) -> None:
    write_status(run, Status(state=State.FAILED, reason="no such folder", exit_code=3))
    run.log.write_text("error: something else\n")
    error = outcome.failure(run, 1)
    assert isinstance(error, DataError)
    assert str(error) == "no such folder"


def test_an_account_of_an_earlier_start_does_not_count(run: RunDir) -> None:
    write_status(
        run, Status(state=State.STOPPED, reason="stopped by Ctrl-C", exit_code=130, heartbeat=1.0)
    )
    run.log.write_text("error: lost its data\n")
    error = outcome.failure(run, 3, since=2.0)
    assert isinstance(error, DataError)
    assert str(error) == "lost its data"


def test_then_its_error_line(run: RunDir) -> None:
    run.log.write_text("loading\nerror: recipe.yaml: bad\nbye\n")
    error = outcome.failure(run, 2)
    assert isinstance(error, UsageError)
    assert str(error) == "recipe.yaml: bad"


def test_what_an_earlier_start_said_does_not_count(run: RunDir) -> None:
    run.log.write_text("t start: torchrun\nerror: old\nt start: torchrun\nerror: new\n")
    assert str(outcome.failure(run, 1)) == "new"


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (-9, DgcError, "the trainer was killed by signal 9: see"),
        (-11, DgcError, "the trainer was killed by signal 11: see"),
        (1, DgcError, "the trainer ended with exit code 1 (last words): see"),
    ],
)
def test_then_the_exit_code_itself(run: RunDir, code: int, kind: type[DgcError], text: str) -> None:
    run.log.write_text("first\nlast words\n\n")
    error = outcome.failure(run, code)
    assert type(error) is kind
    assert str(error).startswith(text)


def test_a_trainer_that_said_nothing(run: RunDir) -> None:
    assert "it said nothing" in str(outcome.failure(run, 1))


def test_the_end_of_a_run_that_never_began_is_written_for_it(run: RunDir) -> None:
    write_status(run, Status(state=State.QUEUED))
    outcome.settle(run, DataError("no data"))
    status = read_status(run)
    assert (status.state, status.reason, status.exit_code) == ("failed", "no data", 3)
    write_status(run, Status(state=State.STOPPED, reason="x"))
    outcome.settle(run, DataError("no data"))
    assert read_status(run).state == State.STOPPED


# --- questions to a process -----------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    return tmp_path / "oracle.py"


def test_an_answer_is_read_and_talk_comes_through(module: Path) -> None:
    module.write_text(
        "import sys, pathlib\nprint('working')\npathlib.Path(sys.argv[-1]).write_text('{\"answer\":"
        " 42}')\n"
    )
    said: list[str] = []
    assert asking.query("oracle", [], say=said.append) == {"answer": 42}
    assert said == ["working"]


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (
            "import sys; print('error: no data there', file=sys.stderr); sys.exit(3)",
            DataError,
            "no data there",
        ),
        (
            "import os; os.kill(os.getpid(), 9)",
            DgcError,
            "python -m oracle was killed by signal 9",
        ),
        ("raise ValueError('odd')", DgcError, "python -m oracle failed (ValueError: odd)"),
        (
            "import sys; print('error: lost\\nerror: rank 1 killed'); sys.exit(10)",
            RankError,
            "rank 1 killed",
        ),
        ("import sys; sys.exit(1)", DgcError, "python -m oracle failed (exit code 1)"),
    ],
)
def test_its_error_is_raised_and_not_printed(
    module: Path, code: str, kind: type[DgcError], text: str
) -> None:
    module.write_text(code)
    said: list[str] = []
    with pytest.raises(DgcError) as caught:
        asking.query("oracle", [], say=said.append)
    assert type(caught.value) is kind
    assert str(caught.value) == text
    assert said == []


def test_ctrl_c_ends_a_question_and_its_process_at_once(module: Path, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    module.write_text(
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"pathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(10_000)\n"
    )
    code = (
        "import sys\nfrom dgcctl.core.launch import query\nfrom dgcctl.cli._ui import diagnostics\n"
    )
    code += (
        "try: query.query('oracle', [])\nexcept BaseException as error:"
        " sys.exit(diagnostics.report(error))\n"
    )
    asking_process = subprocess.Popen(python(code), stderr=subprocess.PIPE, text=True)
    asked = int(wait_for_text(note, by=asking_process))
    asking_process.send_signal(signal.SIGINT)
    _, said = asking_process.communicate(timeout=GUARD)
    assert (asking_process.returncode, said) == (130, "error: interrupted\n")
    assert gone(asked)
