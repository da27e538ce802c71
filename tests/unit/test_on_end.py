"""--on-end: a command is told of a run's end, and whatever it does, the run is as it was."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dgc.run.paths import RunDir
from dgcctl.cli.main import main
from dgcctl.core.runs import on_end
from dgcctl.core.runs.on_end import OnEnd
from dgcctl.core.sweep import pool
from dgcctl.core.sweep.grid import parse_axis
from dgcctl.core.sweep.plan import open_or_create
from tests.unit.run_factory import make_run
from tests.waiting import GUARD, wait_for

ROOT = Path(__file__).resolve().parents[2]
TRAINER = (sys.executable, str(Path(__file__).with_name("fake_trainer.py")))
PYTHON = shlex.quote(sys.executable)
TELL = f"""{PYTHON} -c "import json, os, sys; sys.stdout.write(json.dumps(dict(os.environ)))" > """


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make_run(tmp_path / "runs" / "20260101T000000Z-demo-000001")


def files_of(run: RunDir) -> dict[str, bytes]:
    return {
        path.relative_to(run.path).as_posix(): path.read_bytes()
        for path in sorted(run.path.rglob("*"))
        if path.is_file() and path.name != on_end.FILE
    }


def told(command: str, run: RunDir) -> list[str]:
    said: list[str] = []
    ends = OnEnd(command, said.append)
    ends.begin(run)
    ends.finish()
    return said


def test_it_finds_the_result_in_its_environment(run: RunDir, tmp_path: Path) -> None:
    target = tmp_path / "told.json"
    assert told(TELL + shlex.quote(str(target)), run) == []
    found = json.loads(target.read_text())
    metrics = json.loads(run.metrics.read_text())
    del metrics["schema_version"]
    status = json.loads(run.status.read_text())
    assert found["DGCCTL_RUN"] == run.id
    assert found["DGCCTL_RUN_PATH"] == str(run.path)
    assert found["DGCCTL_RUN_NAME"] == "demo"
    assert found["DGCCTL_RUN_STATE"] == "done"
    assert found["DGCCTL_RUN_REASON"] == ""
    assert found["DGCCTL_RUN_STEP"] == str(status["step"])
    assert found["DGCCTL_RUN_EPOCH"] == str(status["epoch"])
    assert float(found["DGCCTL_RUN_TOP1_ERROR"]) == metrics["top1_error"]
    assert json.loads(found["DGCCTL_RUN_METRICS"]) == metrics
    assert found["DGCCTL_RUNS_DIR"] == str(run.path.parent)
    assert found["PATH"] == os.environ["PATH"]
    assert not run.file(on_end.FILE).exists()


BAD = {
    "fails": ("echo one; echo 'two \x1b[31m' >&2; exit 3", "ended with exit code 3 (two"),
    "is no command": ("no-such-program-here", "ended with exit code 127"),
    "is no shell": ("if then", "ended with exit code 2"),
    "kills itself": ("kill -9 $$", "was killed by signal 9"),
    "hangs": ("echo waiting; exec sleep 1000", "was ended after 1 s (waiting)"),
    "hangs deaf": ("trap '' TERM INT HUP; sleep 1000; sleep 1000", "was ended after 1 s"),
    "writes without end": ("yes 'x y'", "was ended after 1 s (x y"),
    "writes bytes": ("head -c 300000 /dev/urandom; exit 1", "ended with exit code 1"),
    "asks": ("read answer", "ended with exit code 1"),
}


@pytest.mark.parametrize("how", BAD)
def test_what_it_does_badly_is_one_line_and_the_run_is_as_it_was(
    how: str, run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGCCTL_ON_END_SECONDS", "1")
    command, wanted = BAD[how]
    before = files_of(run)
    (line,) = told(command, run)
    assert line.startswith(f"--on-end of run {run.id}: {wanted}"), line
    assert line.endswith("; the run is as it was")
    assert len(line) < 400
    assert "\n" not in line
    assert files_of(run) == before
    kept = run.file(on_end.FILE).read_bytes()
    assert kept.startswith(wanted.partition(" (")[0].encode())
    assert len(kept) < 70_000


def test_one_that_leaves_a_child_behind_is_not_waited_for(run: RunDir, tmp_path: Path) -> None:
    file = tmp_path / "child"
    assert told(f"sleep 1000 & echo $! > {shlex.quote(str(file))}", run) == []
    os.kill(int(file.read_text()), signal.SIGKILL)  # it was left alone, and its output was open


def test_interrupted_it_is_ended_with_what_it_started(run: RunDir, tmp_path: Path) -> None:
    file = tmp_path / "child"
    ends = OnEnd(f"echo $$ > {shlex.quote(str(file))}; sleep 1000", lambda _: None)
    ends.begin(run)
    wait_for(
        lambda: file.exists() and file.read_text().strip(),
        "the command's start",
        by=ends._at_work[0]._process,
    )
    ends._warn = interrupt
    ends._at_work.insert(0, on_end.Telling("exit 1", run, GUARD))
    with pytest.raises(KeyboardInterrupt):
        ends.finish()
    assert not psutil.pid_exists(int(file.read_text()))


def interrupt(_line: str) -> None:
    raise KeyboardInterrupt


def test_a_run_that_is_gone_or_goes_is_no_error(run: RunDir, tmp_path: Path) -> None:
    assert told(f"rm -r {shlex.quote(str(run.path))}; echo x; exit 1", run)[0].endswith("as it was")
    assert not run.path.exists()
    assert told("touch never", run) == []
    assert not run.path.exists()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DGCCTL_RUNS_DIR": str(tmp_path / "runs"),
        "PYTHONPATH": str(ROOT),
        "DGCCTL_ON_END_SECONDS": "2",
    }


TINY = (
    *("model.stages=[1,1]", "model.growth=[8,8]", "train.batch_size=16", "train.max_steps=3"),
    *("data.limit_train=64", "data.limit_val=20", "train.threads=1", "eval.batch_size=20"),
)


def train(environment: dict[str, str], folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dgcctl", "train", "demo", *TINY, *words],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_training_tells_and_is_as_it_was(environment: dict[str, str], tmp_path: Path) -> None:
    command = 'echo "$DGCCTL_RUN_STATE $DGCCTL_RUN_STEP" > told; dgcctl_gone; sleep 1000'
    with train(environment, tmp_path, "--on-end", command) as process:
        out, err = process.communicate(timeout=GUARD)
    assert process.returncode == 0, err
    assert (tmp_path / "told").read_text() == "done 3\n"
    (warning,) = [line for line in err.splitlines() if "--on-end" in line]
    assert "was ended after 2 s" in warning
    assert "top-1 error" in out
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert main(["runs", "verify", "--quick", str(run)]) == 0


def test_a_training_that_fails_or_is_killed_tells_too(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = 'echo "$DGCCTL_RUN_STATE" >> told'
    with train(
        environment, tmp_path, "train.epochs=4000", "train.max_steps=null", "--on-end", command
    ) as process:
        runs = tmp_path / "runs"
        wait_for(lambda: status_of(runs).get("step"), "a step", by=process)
        os.kill(status_of(runs)["pid"], signal.SIGKILL)
        _, err = process.communicate(timeout=GUARD)
    assert process.returncode == 1
    assert "killed by signal 9" in err
    assert (tmp_path / "told").read_text() == "died\n"


def status_of(runs: Path) -> dict[str, int]:
    for path in runs.glob("*/status.json"):
        found: dict[str, int] = json.loads(path.read_text())
        return found
    return {}


def test_nothing_that_was_refused_is_told_of(environment: dict[str, str], tmp_path: Path) -> None:
    words = ["data.name=image_folder", "data.dir=gone", "--on-end", "touch told"]
    with train(environment, tmp_path, *words) as process:
        process.communicate(timeout=GUARD)
    assert process.returncode in (2, 3)
    assert not (tmp_path / "told").exists()


def test_one_that_nobody_watches_is_told_of_when_it_ends(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["--detach", "--on-end", 'echo "$DGCCTL_RUN_STATE" > part && mv part told']
    with train(environment, tmp_path, *words) as process:
        _, err = process.communicate(timeout=GUARD)
    assert process.returncode == 0, err
    wait_for(lambda: (tmp_path / "told").exists(), "the command", by=Detached(status_of, tmp_path))
    assert (tmp_path / "told").read_text() == "done\n"


class Detached:
    """A training that goes on by itself: it has ended for us when its command had time to."""

    def __init__(self, status: object, folder: Path) -> None:
        self.folder, self.until = folder, time.monotonic() + GUARD

    def poll(self) -> int | None:
        return 1 if time.monotonic() > self.until else None

    def last_words(self) -> str:
        return str(status_of(self.folder / "runs"))


def test_each_trial_of_a_sweep_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DGCCTL_ON_END_SECONDS", "1")
    sweep = open_or_create(tmp_path, "demo", [], [parse_axis("seed=0,1")])
    said: list[str] = []
    log = tmp_path / "told"
    command = f'echo "$DGCCTL_RUN_STATE" >> {shlex.quote(str(log))}; test $$ = 0'
    outcome = pool.run_sweep(sweep, trainer=TRAINER, say=said.append, on_end=command)
    assert outcome.done == [0, 1]
    assert log.read_text() == "done\ndone\n"
    assert sum("--on-end of run" in line for line in said) == 2


def test_a_wrong_limit_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DGCCTL_ON_END_SECONDS", "soon")
    assert main(["train", "demo", "--on-end", "true", "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "DGCCTL_ON_END_SECONDS='soon': should be a number" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
