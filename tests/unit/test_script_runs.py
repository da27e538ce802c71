"""dgc.run.start: a run directory from any script, which the manager treats like any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import dgc
from dgc.errors import ArgumentError, UsageError
from dgc.run import git
from dgc.run.events import read_events
from dgc.run.paths import RunDir
from dgc.run.status import read_status
from dgcctl.cli.main import main
from dgcctl.core.runs import listing
from dgcctl.core.runs.recipe_values import OF_THE_RUN
from tests.waiting import GUARD

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, time
import dgc
with dgc.run.start("mine", {"lr": 0.1, "net": {"width": 32}}, steps=3, runs_dir=sys.argv[1]) as run:
    assert "torch" not in sys.modules
    for step in (1, 2, 3):
        run.log(step, loss=1.0 / step, lr=0.1)
    run.evaluate(3, epoch=1, top1_error=25.0, loss=0.5)
    print("logged", flush=True)
    if sys.argv[2] == "wait":
        while not run.stopping:
            time.sleep(0.05)
        run.stop()
    if sys.argv[2] == "crash":
        raise RuntimeError("first\\nsecond \\x1b[31m")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script in a git checkout of its own, with an uncommitted change."""
    folder = tmp_path / "own"
    folder.mkdir()
    path = folder / "train.py"
    path.write_text(SCRIPT)
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        named = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", *named, *words], cwd=folder, check=True, env=git.environment())
    path.write_text(SCRIPT + "# changed\n")
    return path


def start(script: Path, runs: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), str(runs), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def recorded(runs: Path) -> listing.Run:
    (run,) = listing.list_runs(runs)
    return run


def until_logged(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"


@pytest.mark.parametrize(
    ("how", "state", "reason", "code"),
    [
        ("end", "done", "", 0),
        ("crash", "failed", "RuntimeError: first second \x1b[31m", 1),
        ("kill", "died", "", None),
        ("interrupt", "stopped", "Ctrl-C", 130),
    ],
)
def test_it_ends_as_a_training_ends(
    how: str, state: str, reason: str, code: int | None, script: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    with start(script, runs, "wait" if how in ("kill", "interrupt") else how) as process:
        until_logged(process)
        if how in ("kill", "interrupt"):
            process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
        process.communicate(timeout=GUARD)
    run = recorded(runs)
    assert run.state == state
    status = read_status(run.dir)
    assert status.reason == reason
    if code is not None:  # who was killed said so at its last heartbeat
        assert (status.exit_code, status.step, status.epoch) == (code, 3, 1)
    steps = [event["step"] for event in read_events(run.dir) if event["kind"] == "step"]
    assert steps == [1, 2, 3]
    assert json.loads(run.dir.metrics.read_text())["top1_error"] == 25.0


def test_it_hears_that_somebody_wants_it_to_stop(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    with start(script, runs, "wait") as process:
        until_logged(process)
        assert main(["runs", "stop", "latest", "--runs-dir", str(runs)]) == 0
        said = capsys.readouterr().err
        assert "to stop: its script hears it where it looks for it" in said
        assert "resume" not in said
        process.communicate(timeout=GUARD)
        assert process.returncode == 0
    assert recorded(runs).state == "stopped"


def test_the_manager_treats_it_like_any_other(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    for _ in range(2):
        with start(script, runs, "end") as process:
            _, said = process.communicate(timeout=GUARD)
            assert process.returncode == 0, said
    at = ["--runs-dir", str(runs)]

    def told(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main([*words, *at]) == code, capsys.readouterr().err
        printed = capsys.readouterr()
        return printed.out + printed.err

    rows = json.loads(told("runs", "ls", "net.width=32", "lr=0.1", "--json"))["runs"]
    assert [row["top1_error"] for row in rows] == [25.0, 25.0]
    assert "no runs in" in told("runs", "ls", "lr=0.2")
    first, second = (row["id"] for row in rows)
    assert "25.00" in told("runs", "compare", first, second)
    assert "dgcctl runs tail" in (shown := told("runs", "show", first))
    assert "eval" not in shown
    assert "records agree" in told("runs", "verify", first)
    page = tmp_path / "page.html"
    told("report", first, "-o", str(page))
    assert "mine" in page.read_text()
    assert "mine" in told("dash", "--once")
    for words in (["resume", first], ["rerun", first]):
        assert "a script recorded this run (dgc.run.start), so it has no recipe" in told(
            *words, code=2
        )
    facts = json.loads(RunDir(runs / first).git.read_text())
    assert facts["restorable"] is True
    assert "+# changed" in (runs / first / "git.patch").read_text()


def test_weights_and_pictures(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2)
    picture = b"\x89PNG\r\n\x1a\n rest"
    with dgc.run.start("own", {"path": tmp_path}, runs_dir=tmp_path / "runs") as run:
        run.log(5, loss=0.25)
        folder = run.checkpoint(net)
        kept = run.image("curve", picture)
        run.note("look", "warning")
    assert folder.name == "step-000005"
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    assert torch.equal(saved["weight"], net.weight)
    assert kept.read_bytes() == picture
    assert json.loads(run.dir.last.read_text())["step"] == 5
    kinds = [event["kind"] for event in read_events(run.dir)]
    assert kinds == ["step", "checkpoint", "alert", "end"]
    with pytest.raises(UsageError, match=r"has ended .its"):
        run.log(6, loss=1.0)


@pytest.mark.parametrize("case", ["no git", "another's", "no commit", "none", "stdin"])
def test_what_git_refuses_ends_no_script(case: str, script: Path, tmp_path: Path) -> None:
    """The run goes on; its record says what it lacks, and keeps the script itself."""
    place = tmp_path / "place"
    place.mkdir()
    own = place / "own.py"
    own.write_text(script.read_text())
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GIT_CONFIG_GLOBAL": os.devnull}
    if case == "no git":
        env["PATH"] = str(tmp_path / "nothing")
    elif case != "none":
        subprocess.run(["git", "init", "-q", str(place)], check=True)
    if case == "another's":
        env["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    words = ["-"] if case == "stdin" else [str(own)]
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path / "runs"), "end"],
        input=own.read_text() if case == "stdin" else "",
        env=env, cwd=place, capture_output=True, text=True, check=False, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = recorded(tmp_path / "runs")
    facts = json.loads(run.dir.git.read_text())
    assert facts["restorable"] is False
    if case == "stdin":
        assert facts["problem"] == "the script came from no file, and is not recorded"
    else:
        assert facts["problem"].endswith("so the script itself is all that is recorded")
        assert run.dir.file("script.py").read_bytes() == own.read_bytes()
    assert "its code cannot be restored from its record" in run.dir.log.read_text()


def test_tied_weights_are_saved_under_both_names(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    net[1].weight = net[0].weight
    with dgc.run.start("tied", runs_dir=tmp_path / "runs") as run:
        folder = run.checkpoint(net, step=1)
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    assert torch.equal(saved["0.weight"], saved["1.weight"])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"x": object()}, r"config.x is a object: give numbers"),
        ({"x": {1: 2}}, r"config.x: 1 is no text"),
        ({"x": [1, {2, 3}]}, r"config.x\[1\] is a set"),
    ],
)
def test_a_config_that_json_cannot_say_leaves_nothing(
    config: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=said):
        dgc.run.start("own", config, runs_dir=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_tab_keys_know_what_is_imported_when_it_is_asked_for() -> None:
    said = "import dgc.run, sys; print('start' in dir(dgc.run), 'dgc.run.script' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"


def test_figures_are_numbers(tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        run.log(1, loss=float("nan"))
        with pytest.raises(ArgumentError, match="loss = 'x' is no number"):
            run.log(2, loss="x")  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="'kind' is a word of the log itself"):
            run.log(2, kind=1.0)
        with pytest.raises(ArgumentError, match="should be a file's name"):
            run.image("../x", b"\x89PNG")
    (row, _) = read_events(run.dir)
    assert row["loss"] is None
    with pytest.raises(UsageError, match="becomes a folder's name"):
        dgc.run.start("a/b", runs_dir=tmp_path)


@pytest.mark.parametrize("step", [{"loss": 1}, 0.5, "three", None, True])
def test_a_step_is_a_whole_number(step: object, tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        for call in (run.log, run.evaluate):
            with pytest.raises(
                ArgumentError, match=r"is no whole number from 0 on: .* run.log\(10, loss=0.5"
            ):
                call(step, loss=1.0)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="write the step first, then figures by name"):
            run.log({"loss": 1.0}, step=3)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match=r"run.log.1, epoch='x'. is no whole number"):
            run.log(1, epoch="x", loss=1.0)  # type: ignore[arg-type]
        if step is not None:
            with pytest.raises(ArgumentError, match=r"run.checkpoint\(model, step="):
                run.checkpoint({}, step=step)  # type: ignore[arg-type]
        run.log(torch.tensor(3), loss=1.0)  # type: ignore[arg-type]
    assert [row["step"] for row in read_events(run.dir)] == [3, 3]
    assert read_status(run.dir).step == 3


def test_what_was_written_before_steps_were_held_to_numbers_is_read_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for at, odd in enumerate(({"loss": 1}, "three", [1])):
        with dgc.run.start("own", {"lr": at}, runs_dir=tmp_path) as run:
            run.log(1, loss=3.0)
            run._events.append("step", step=odd, epoch=0, loss=2.0)
            run._events.append("eval", step=2, epoch=odd, loss=2.0)
            run.evaluate(2, accuracy=0.5)
            run.status.step = odd  # type: ignore[assignment]
            run.status.epoch = odd  # type: ignore[assignment]
        runs = ("--runs-dir", str(tmp_path))
        for words in (["show", run.id], ["ls"], ["compare", "name=own"], ["tail", run.id]):
            assert main(["runs", *words, *runs]) == 0, words
        out = capsys.readouterr().out
        assert "accuracy" in out
        assert [row["step"] for row in read_events(run.dir) if row["kind"] != "end"] == [1, 2]
    page = tmp_path / "page.html"
    assert main(["report", "name=own", "-o", str(page), *runs]) == 0
    assert "accuracy" in page.read_text()


def test_nothing_is_written_to_a_run_that_has_ended(tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        run.stop()
        for call in (
            lambda: run.note("late"),
            lambda: run.note("late", "warning"),
            lambda: run.checkpoint({"a": torch.zeros(1)}),
            lambda: run.image("late", b"\x89PNG"),
        ):
            with pytest.raises(UsageError, match=r"has ended .its"):
                call()
    assert not run.dir.log.exists() or "late" not in run.dir.log.read_text()
    assert not (run.path / "images").exists()


def test_what_is_no_weight_is_refused_by_name(tmp_path: Path) -> None:
    with dgc.run.start("own", runs_dir=tmp_path) as run:
        with pytest.raises(
            ArgumentError, match="checkpoint: 'a' is a int, and weights are tensors"
        ):
            run.checkpoint({"a": 1})
        with pytest.raises(ArgumentError, match="checkpoint of a list: give a torch module"):
            run.checkpoint([torch.zeros(1)])
    assert not list(run.path.glob("checkpoints/*"))


def test_what_a_script_logged_last_is_known_to_every_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lr, accuracy in ((0.1, 0.5), (0.2, 0.75)):
        with dgc.run.start("own", {"lr": lr}, runs_dir=tmp_path) as run:
            run.log(1, acc=0.1, loss=2.0, lr=lr)
            run.log(2, acc=accuracy)
            if lr == 0.2:
                run.evaluate(2, f1=0.25, acc=0.8)
    runs = ("--runs-dir", str(tmp_path))
    assert main(["runs", "ls", "acc>0.6", "--columns", "acc,loss,f1", "--csv", *runs]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"{run.id},0.8,2.0,0.25"]
    assert main(["runs", "compare", "name=own", "--csv", *runs]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    columns = dict(zip(head.split(","), first.split(","), strict=True))
    assert (columns["acc_mean"], columns["loss_mean"], columns["lr"]) == ("0.5", "2.0", "0.1")
    assert dict(zip(head.split(","), second.split(","), strict=True))["f1_mean"] == "0.25"
    assert main(["runs", "compare", "name=own", *runs]) == 0
    table = capsys.readouterr().out
    assert "0.75" not in table
    assert "0.8" in table
    assert main(["runs", "diff", "latest", f"{listing.list_runs(tmp_path)[1].id}", *runs]) == 0
    assert "acc" in capsys.readouterr().out
    assert main(["runs", "show", run.id, *runs]) == 0
    shown = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert (shown["acc"], shown["f1"], shown["loss"]) == ("0.8", "0.25", "2")
    page = tmp_path / "page.html"
    assert main(["report", "name=own", "-o", str(page), *runs]) == 0
    text = page.read_text()
    assert all(f">{name}</th>" in text for name in ("acc", "f1", "loss"))


def test_the_seed_of_config_is_that_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    for seed, error in ((0, 10.0), (1, 12.0)):
        with dgc.run.start("own", {"seed": seed, "lr": 0.1}, runs_dir=runs) as run:
            run.log(1, loss=error)
    assert main(["runs", "ls", "seed=1", "--ids", "--runs-dir", str(runs)]) == 0
    assert capsys.readouterr().out.split() == [run.id]
    with dgc.run.start("own", seed=3, runs_dir=runs) as run:
        assert json.loads(run.dir.config.read_text())["seed"] == 3


def test_two_seeds_or_one_that_is_no_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^seed is 0 and config.seed 2: give one of them$"):
        dgc.run.start("own", {"seed": 2}, seed=0, runs_dir=tmp_path)
    for seed in ("a", 1.0, True):
        with pytest.raises(ArgumentError, match=rf"^config.seed is {seed!r}: give a whole number"):
            dgc.run.start("own", {"seed": seed}, runs_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_value_of_a_config_hides_behind_what_every_run_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    for epochs in (3, 7):
        config = {"epochs": epochs, "loss": "hinge", "name": "mine", "net": {"steps": 5}}
        with dgc.run.start("own", config, epochs=90, runs_dir=runs) as run:
            run.evaluate(1, loss=0.5)
    assert main(["runs", "ls", "config.epochs=7", "--ids", "--runs-dir", str(runs)]) == 0
    assert capsys.readouterr().out.split() == [run.id]
    values = recorded_values(runs, run.id)
    assert (values["epochs"], values["config.epochs"]) == (90, 7)
    assert (values["loss"], values["config.loss"]) == (0.5, "hinge")
    assert (values["name"], values["config.name"]) == ("own", "mine")
    assert values["net.steps"] == 5
    assert main(["runs", "compare", "name=own", "--runs-dir", str(runs), "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)
    assert "config.epochs" in json.dumps(groups)
    # whatever a run gets to be listed with later stands in this list too
    own = set(run_of(runs, run.id).row()) | {"note", "name", "age", "host", "owner", "tags"}
    assert own <= OF_THE_RUN


def run_of(runs: Path, run: str) -> listing.Run:
    return next(found for found in listing.list_runs(runs) if found.id == run)


def recorded_values(runs: Path, run: str) -> dict[str, object]:
    return run_of(runs, run).values


def test_tags_that_are_one_text_are_no_letters(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"tags is one text: give a list, \['abc'\]"):
        dgc.run.start("own", tags="abc", runs_dir=tmp_path / "runs")  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()
