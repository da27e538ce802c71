"""What a search draws: no trial twice, no choice dropped in silence, no figure that is not there."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from dgc.errors import RecipeError, UsageError
from dgcctl.cli import search as command
from dgcctl.cli.main import main
from dgcctl.core.runs.listing import list_runs
from dgcctl.core.search import study, worker
from dgcctl.core.search.draws import try_choices
from dgcctl.core.search.space import parse_choices

pytestmark = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs Optuna")
HERE = Path(__file__)
TRAINER = (sys.executable, str(HERE.with_name("search_trainer.py")))


@pytest.fixture(autouse=True)
def package_is_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[2]))


def searched(runs, trials, values, **options):
    search = study.open_or_create(runs, "demo", values, **options)
    return search, worker.work(search, trials=trials, trainer=TRAINER, say=lambda text: None)


@pytest.fixture
def typed(tmp_path, monkeypatch, capsys):
    """`dgcctl search ...` with the trainer of the tests: its code, data and talk."""
    real = worker.work
    monkeypatch.setattr(command, "work", lambda *a, **k: real(*a, trainer=TRAINER, **k))

    def run(*words):
        code = main(["search", *words, "--runs-dir", str(tmp_path)])
        return code, *capsys.readouterr()

    return run


def test_choices_that_no_recipe_takes_are_told_of_and_what_was_refused_is_counted(typed, tmp_path):
    code, out, err = typed("demo", "model.heads=4,3,5", "--trials", "3")
    assert code == 0
    for heads in (3, 5):
        why = f"model.heads = {heads} does not divide model.growth[0] = 8"
        assert f"warning: model.heads={heads} can never be used: {why}" in err
        assert re.search(rf"^[1-9]\d* draws? refused: {re.escape(why)}: take a divisor", err, re.M)
    assert "1 of 3 trials: no other values are left to choose" in err
    assert "model.heads=4" in out  # though all trials have it
    assert len(list_runs(tmp_path)) == 1
    code, out, _ = typed("show", "--json")
    told = json.loads(out)
    journal = (next(tmp_path.glob("searches/*/journal.log"))).read_text()
    assert sum(row["draws"] for row in told["refused"]) == journal.count('"refused"') >= 2
    assert told["direction"] == "minimize"


def test_a_choice_that_goes_with_another_is_no_mistake(tmp_path):
    told = []
    values = ("optim.name=sgd,adamw", "optim.nesterov=true,false", "optim.momentum=0.0,0.9")
    study.open_or_create(tmp_path, "demo", values, warn=told.append)
    assert told == []
    study.open_or_create(tmp_path, "demo", ("optim.name=adamw,sgd",), warn=told.append)
    assert [(one.key, one.value) for one in told] == [("optim.name", "adamw")]
    assert told[0].why.startswith("optim.momentum = 0.9 belongs to sgd")


def test_nothing_is_said_of_choices_that_were_not_all_tried():
    _, choices = parse_choices(["model.heads=4,3", "seed=0..5000"])
    asked = []

    def load(words):
        asked.append(words)
        if "model.heads=3" in words:
            raise RecipeError("not three")

    assert try_choices(choices, load)[1] == []
    assert len(asked) == 100


def test_a_search_without_any_recipe_is_refused_at_once(tmp_path):
    with pytest.raises(RecipeError, match="heads = 3 does not divide"):
        study.open_or_create(tmp_path, "demo", ("model.heads=3,5",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sampler", study.SAMPLERS)
def test_no_trial_is_trained_twice_and_all_of_a_finite_space_is_reached(tmp_path, sampler):
    values = ("optim.lr=0.01..0.02:0.01", "seed=0..1")
    search, outcome = searched(tmp_path, 9, values, sampler=sampler)
    drawn = {row["values"] for row in search.rows()}
    assert len(search.rows()) == len(drawn) == 4 == len(list_runs(tmp_path))
    assert (outcome.left, search.left()) == ([], [])
    assert {row["state"] for row in search.rows()} == {"done"}
    assert command._tasks(search, 9) == []  # nor is a cluster given more


def test_draws_that_only_repeat_are_told_of_where_nothing_can_be_counted(tmp_path):
    search = study.open_or_create(tmp_path, "demo", ("optim.lr=log:0.01..0.0100000001",))
    held = search.claim(1, frozenset())
    with pytest.raises(UsageError, match="20 draws in a row repeat earlier trials"):
        search.claim(2, frozenset())
    assert held.trial.index == 0


def test_a_misspelt_metric_is_refused_before_anything_is_made(typed, tmp_path):
    code, _, err = typed("demo", "seed=0..3", "--metric", "top1_eror")
    assert code == 2
    assert "--metric top1_eror: no evaluation has it (did you mean top1_error?)" in err
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_the_first_trial_lacks_ends_the_search_and_stays_its_end(typed, tmp_path):
    words = ("demo", "seed=0..3", "--metric", "ema_loss", "--trials", "4")
    for _ in range(2):
        code, _, err = typed(*words)
        assert code == 1
        assert "trial 0 ended without ema_loss: its evaluations have loss, top1_error" in err
        assert len(list_runs(tmp_path)) == 1


def test_maximize_turns_what_is_best(typed, tmp_path):
    values = ("optim.lr=0.01,0.03",)
    least, most = (
        searched(tmp_path, 2, values, maximize=up, pruner="none")[0] for up in (False, True)
    )
    assert least.path != most.path
    assert str(most.study.direction) == "2"  # Optuna's word for it
    best = [one.rows()[one.best()]["values"] for one in (least, most)]
    assert best == ["optim.lr=0.01", "optim.lr=0.03"]
    _, out, _ = typed("show", most.asked.id, "--json")
    assert json.loads(out)["direction"] == "maximize"
    assert typed("demo", *values, "--maximize", "--pruner", "none", "--trials", "2")[0] == 0
    assert len(list_runs(tmp_path)) == 4  # it went on with the search that stands there


def test_a_search_of_an_older_release_minimizes(tmp_path):
    search = study.open_or_create(tmp_path, "demo", ("seed=0..3",))
    plan = search.path / "plan.json"
    old = json.loads(plan.read_text())
    del old["maximize"]
    plan.write_text(json.dumps(old))
    assert not study.open_search(search.path).asked.maximize


def test_a_trial_in_the_trash_says_so(typed, tmp_path, capsys):
    search, _ = searched(tmp_path, 2, ("seed=0..1",))
    runs = ("--runs-dir", str(tmp_path))
    first, second = (row["run"] for row in search.rows())
    assert main(["runs", "rm", first, "--yes", *runs]) == 0
    assert main(["runs", "rm", second, "--yes", "--for-good", *runs]) == 0
    capsys.readouterr()
    rows = json.loads(typed("show", "--json")[1])["trials"]
    assert [row["state"] for row in rows] == ["removed", "removed"]
    assert rows[0]["reason"] == f"in the trash: `dgcctl runs restore {first}` brings it back"
    assert rows[1]["reason"] == "its run is gone; the search keeps the figure"
    assert main(["runs", "restore", first, *runs]) == 0
    capsys.readouterr()
    assert json.loads(typed("show", "--json")[1])["trials"][0]["state"] == "done"
