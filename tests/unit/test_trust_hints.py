"""Commands that an error or a note gives say `--trust-code` where the run needs it and it is
trusted now; none suggests to trust more.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dgc.errors import UnsafeFileError, UsageError
from dgc.recipe.load import dump_recipe, find_recipe, load_recipe
from dgc.run import trusted_code
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, write_status
from dgc.run.trusted_code import trust_words_of
from dgc.train import launch
from dgc.train.signals import Stop
from dgcctl.cli import main
from dgcctl.core.launch import outcome
from dgcctl.core.repro.repetition import repeat
from dgcctl.tui import actions
from tests.unit.run_factory import make_run

OWN = "python:mine.nets:build"


def own_run(folder: Path, state: State) -> RunDir:
    """A run of a network of one's own, as far as commands look at it."""
    run = RunDir(folder / "20260101T000000Z-own-aaa111")
    run.path.mkdir(parents=True)
    write_json(run.recipe_json, {"recipe": {"model": {"name": OWN}, "data": {"name": "cifar10"}}})
    run.recipe.write_text(f"name: own\nmodel:\n  name: {OWN}\n")
    write_status(run, Status(state=state))
    return run


@pytest.mark.parametrize(("trusted", "words"), [("", ""), ("mine,other", " --trust-code mine")])
def test_every_hint_of_a_run_trusts_what_is_trusted_now(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trusted: str,
    words: str,
) -> None:
    monkeypatch.setenv("DGCCTL_TRUST_CODE", trusted)
    monkeypatch.setenv("DGCCTL_RUNS_DIR", str(tmp_path))
    run = own_run(tmp_path, State.RUNNING)
    resume = f"`dgcctl resume {run.id}{words}`"
    killed = outcome.failure(run, -9)
    assert str(killed).endswith(f"log.txt, then {resume}")
    assert str(launch.explain(run, {0: 0, 1: -9})).endswith(f"): {resume}")
    stopped = Stop.PREEMPTED.error(12, "20260101T000000Z-x-1", trust_words_of(run.recipe_json))
    assert (
        str(stopped)
        == f"preempted: saved at step 12; go on with `dgcctl resume 20260101T000000Z-x-1{words}`"
    )
    whole = make_run(tmp_path / "20260102T000000Z-own-bbb222", state=State.STOPPED)
    write_json(whole.recipe_json, read_json(run.recipe_json))
    with pytest.raises(UsageError) as caught:
        repeat(whole, tmp_path)
    assert str(caught.value).endswith(f"to repeat: `dgcctl resume {whole.id}{words}`")
    write_status(run, Status(state=State.DONE))
    assert main.main(["resume", run.id]) == 2
    assert f"is done: `dgcctl eval --run {run.id}{words}` measures it" in capsys.readouterr().err


def test_a_run_is_shown_with_what_its_next_commands_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trust that is given is repeated; where it is not, a line says so as the refusal would."""
    run = own_run(tmp_path, State.DONE)
    show = ["runs", "show", run.id, "--runs-dir", str(tmp_path)]
    untold = "mine is not trusted here: if you know it, say --trust-code mine"
    for trusted in ("", "mine"):
        monkeypatch.setenv("DGCCTL_TRUST_CODE", trusted)
        assert main.main(show) == 0
        lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
        told = [text for name, text in lines if name in ("own", "next")]
        words = " --trust-code mine" if trusted else ""
        assert told[-3].endswith(f"dgcctl eval --run {run.path}{words}")
        assert [text for text in told if "not trusted" in text] == (
            [] if trusted else [f"code  {untold}"]
        )


def test_a_request_to_stop_names_the_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DGCCTL_TRUST_CODE", "mine")
    run = own_run(tmp_path, State.RUNNING)
    monkeypatch.setattr("dgcctl.core.runs.listing.inferred_state", lambda status: status.state)
    assert main.main(["runs", "stop", run.id, "--runs-dir", str(tmp_path)]) == 0
    assert f"`dgcctl resume {run.path} --trust-code mine` goes on" in capsys.readouterr().err


def test_a_run_without_its_record_gets_a_hint_without_packages(tmp_path: Path) -> None:
    assert trust_words_of(tmp_path / "recipe.json") == ""
    write_json(RunDir(tmp_path).recipe_json, {"recipe": ["model"]})
    assert trust_words_of(tmp_path / "recipe.json") == ""


def test_the_dashboard_starts_and_resumes_own_code_only_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(
        actions.launcher, "start_training", lambda run, *_, **__: started.append(run)
    )
    recipe = tmp_path / "own.yaml"
    demo = dump_recipe(load_recipe(find_recipe("demo"))).split("model:")[0]
    recipe.write_text(
        f"{demo}model: {{name: '{OWN}', form: dense, num_classes: 10}}\n"
        "data: {name: fashion_mnist, augment: none, image_size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}\n"
        "optim: {lr: 0.1}\ntrain: {epochs: 1, batch_size: 8}\neval: {batch_size: 8}\n"
    )
    run = own_run(tmp_path / "runs", State.STOPPED)
    trainers = actions.Trainers()
    for begin in (
        lambda: trainers.start(recipe, tmp_path / "runs"),
        lambda: trainers.resume(run),
    ):
        with pytest.raises(UnsafeFileError, match=r"which was not trusted.*say --trust-code mine$"):
            begin()
    assert (started, list((tmp_path / "runs").iterdir())) == ([], [run.path])
    monkeypatch.setenv("DGCCTL_TRUST_CODE", "mine")
    trainers.start(recipe, tmp_path / "runs")
    trainers.resume(run)
    assert len(started) == 2


def test_dash_takes_trust_code_like_every_command_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DGCCTL_TRUST_CODE", "")
    words = ["dash", "--once", "--runs-dir", str(tmp_path), "--trust-code"]
    assert main.main([*words, "mine.nets"]) == 2
    assert "should be the name of one package" in capsys.readouterr().err
    assert main.main([*words, "mine"]) == 0
    assert os.environ["DGCCTL_TRUST_CODE"] == "mine"


def test_copies_of_own_code_named_by_somebody_elses_record_lie_in_their_folder() -> None:
    """An imported run says what it likes of its files: none outside of it is opened."""
    files = {"mine/net.py": "a" * 64, "../../secret": "b" * 64, "/dev/zero": "c" * 64}
    assert trusted_code.kept_files({"mine": {"files": files, "kept": list(files)}}) == {
        "mine/net.py": "a" * 64
    }
    assert trusted_code.kept_files({"mine": {"files": files, "kept": 3}}) == {}
