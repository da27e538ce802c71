"""Searches: values by Optuna, trials that are ended early, workers that are killed and go on."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.errors import RecipeError, UsageError
from dgcctl.cli.main import main
from dgcctl.core.runs.listing import list_runs
from dgcctl.core.search import study, worker
from dgcctl.core.search.space import parse_choices
from tests.unit.search_trainer import BAD

pytestmark = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs Optuna")
HERE = Path(__file__)
TRAINER = (sys.executable, str(HERE.with_name("search_trainer.py")))
VALUES = ("optim.lr=0.01,0.02,0.03,0.2", "model.gate_factor=0.25..0.75")
SEED = 1
WORKER = """
import sys
from pathlib import Path
from dgcctl.core.search import study, worker
search = study.open_or_create(Path(sys.argv[1]), "demo", sys.argv[5:], seed=int(sys.argv[3]))
worker.work(search, trials=int(sys.argv[2]), trainer=(sys.executable, sys.argv[4]))
"""


@pytest.fixture(autouse=True)
def package_is_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE.parents[2]))


def searched(runs, trials, values=VALUES, **options):
    search = study.open_or_create(runs, "demo", values, **{"seed": SEED, **options})
    outcome = worker.work(search, trials=trials, trainer=TRAINER, say=lambda text: None)
    return search, outcome


def told(search):
    """What two searches of one seed have in common."""
    return [(row["swept"], row["top1_error"], row["best"]) for row in search.rows()]


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    os.environ["PYTHONPATH"] = str(HERE.parents[2])
    return searched(tmp_path_factory.mktemp("unkilled"), 9)[0]


def test_each_trial_is_a_run_and_what_is_given_up_is_a_stopped_run_with_the_reason(unkilled):
    rows = unkilled.rows()
    assert [row["trial"] for row in rows] == list(range(9))
    runs = {run.id: run for run in list_runs(unkilled.path.parent.parent)}
    assert set(runs) == {row["run"] for row in rows}
    bad = [row for row in rows if f"optim.lr={BAD}" in row["swept"] and row["trial"] >= 5]
    assert bad  # of this seed
    for row in rows:
        run = runs[row["run"]]
        assert run.recipe["model.gate_factor"] == float(row["swept"].partition("factor=")[2])
        if row in bad:
            assert run.state == "stopped"
            assert run.status.reason.startswith(f"stopped early by the search {unkilled.asked.id}")
            assert "(median): top1_error 29.9 after epoch 1" in run.status.reason
        else:
            assert (run.state, run.status.reason) == ("done", "")
    best = next(row for row in rows if row["best"])
    assert best["top1_error"] == min(row["top1_error"] for row in rows)


def test_each_trials_end_is_told_of(tmp_path):
    search = study.open_or_create(tmp_path, "demo", ("optim.lr=0.01,0.02",), seed=SEED)
    log = tmp_path / "told"
    command = f'echo "$DGCCTL_RUN $DGCCTL_RUN_STATE $DGCCTL_RUN_TOP1_ERROR" >> {log}'
    worker.work(search, trials=2, trainer=TRAINER, say=lambda text: None, on_end=command)
    wanted = [f"{row['run']} done {row['top1_error']}" for row in search.rows()]
    assert log.read_text().splitlines() == wanted


def test_a_search_killed_again_and_again_makes_the_trials_of_one_that_was_not(unkilled, tmp_path):
    words = [sys.executable, "-u", "-c", WORKER, str(tmp_path), "9", str(SEED), TRAINER[1], *VALUES]
    for kills in range(int(os.environ.get("SEARCH_KILLS", "4"))):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        # at another place each time: after so many lines, or where it is done before
        for _ in range(1 + kills % 3):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        # half a line of a journal that was being written
        journal = next(tmp_path.glob("searches/*/journal.log"))
        with journal.open("ab") as file:
            file.write(b'{"op_code": 4, "tri')
    search, outcome = searched(tmp_path, 9)
    assert outcome.left == []
    assert told(search) == told(unkilled)
    assert len(list_runs(tmp_path)) == 9
    again, _ = searched(tmp_path, 9)  # nothing is left to do
    assert told(again) == told(unkilled)


def test_two_workers_share_a_search_and_make_no_trial_twice(tmp_path):
    words = [
        sys.executable,
        "-u",
        "-c",
        WORKER,
        str(tmp_path),
        "6",
        str(SEED),
        TRAINER[1],
        VALUES[1],
    ]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    search = next(study.list_searches(tmp_path))
    begun = [line.split(":")[0] for text in said for line in text.splitlines() if "started" in line]
    assert sorted(begun) == [f"trial {index}" for index in range(6)]
    assert len(list_runs(tmp_path)) == 6
    assert search.still_due() == []


def test_a_trial_whose_asking_was_cut_off_is_none(tmp_path):
    search = study.open_or_create(tmp_path, "demo", VALUES, seed=SEED)
    search.study.ask()  # no values, no run
    search, _ = searched(tmp_path, 2)
    assert [row["trial"] for row in search.rows()] == [0, 1]


def test_a_stopped_search_goes_on_and_may_be_made_longer(tmp_path):
    words = [sys.executable, "-u", "-c", WORKER, str(tmp_path), "3", str(SEED), TRAINER[1], *VALUES]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert not any(run.state == "running" for run in list_runs(tmp_path))
    assert len(searched(tmp_path, 3)[0].rows()) == 3
    assert len(searched(tmp_path, 4)[0].rows()) == 4


def test_ranges_are_optunas_distributions():
    _, choices = parse_choices(["a=log:0.01..0.3", "b=0..4", "c=0..1:0.25", "d=x,y", "e=1..9:4"])
    a, b, c, d, e = (choice.distribution() for choice in choices)
    assert (a.low, a.high, a.log) == (0.01, 0.3, True)
    assert (b.low, b.high, b.step) == (0, 4, 1)
    assert (c.low, c.high, c.step) == (0.0, 1.0, 0.25)
    assert d.choices == ("x", "y")
    assert (e.low, e.high, e.step) == (1, 9, 4)
    assert parse_choices(["a=0..1", "seed=3"])[0] == ["seed=3"]


@pytest.mark.parametrize(
    ("values", "options", "error", "says"),
    [
        ([], {}, UsageError, "name at least one key"),
        (["seed=3"], {}, UsageError, "name at least one key"),
        (["seed=0..1", "seed=2..3"], {}, UsageError, "searched twice"),
        (["seed=0..1"], {"sampler": "best"}, UsageError, "--sampler best: should be tpe or random"),
        (["seed=0..1"], {"pruner": "x"}, UsageError, "should be none, median or halving"),
        (["optim.lrr=0..1"], {}, RecipeError, "optim.lr"),
    ],
)
def test_what_cannot_be_searched_gets_one_line_and_nothing_is_made(
    tmp_path, values, options, error, says
):
    with pytest.raises(error, match=says):
        study.open_or_create(tmp_path, "demo", values, **options)
    assert list(tmp_path.iterdir()) == []


def test_other_values_under_the_same_name_are_refused(tmp_path):
    study.open_or_create(tmp_path, "demo", VALUES, name="mine")
    with pytest.raises(UsageError, match="other values"):
        study.open_or_create(tmp_path, "demo", VALUES, name="mine", seed=5)


def test_the_command_shows_and_lists_searches(unkilled, capsys):
    runs = ("--runs-dir", str(unkilled.path.parent.parent))
    assert main(["search", "show", "latest", "--json", *runs]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["top1_error"] for row in shown["trials"]] == [row[1] for row in told(unkilled)]
    assert shown["best"] == unkilled.best()
    assert main(["search", "ls", "--csv", *runs]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{unkilled.asked.id},9,0,")
    assert main(["search", "show", "none", *runs]) == 2
    assert "no such search" in capsys.readouterr().err


@pytest.mark.slow  # the real trainer, twice eight trials
def test_a_search_killed_ten_times_with_the_real_trainer_is_the_unkilled_one(tmp_path):
    small = ["model.stages=[1,1,1]", "model.growth=[4,4,4]", "data.limit_train=44"]
    small += ["data.limit_val=30", "train.epochs=3", "train.batch_size=8", "train.threads=1"]
    small += ["eval.batch_size=16", "checkpoint.every_steps=3", "optim.lr=log:0.001..0.3"]
    words = ["-m", "dgcctl", "search", "demo", *small, "--trials", "8", "--seed", "1"]

    def command(folder):
        return [sys.executable, "-u", *words, "--runs-dir", str(folder)]

    kills = 0
    while kills < 10:
        process = subprocess.Popen(
            command(tmp_path / "killed"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        # what it is to do and a trial's beginning, and every second time that trial's end too
        for _ in range(2 + kills % 2):
            process.stderr.readline()
        assert process.poll() is None, "there was nothing left to kill"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    for name in ("killed", "unkilled"):
        subprocess.run(command(tmp_path / name), check=True, capture_output=True)
    killed, unkilled = (
        next(study.list_searches(tmp_path / name)) for name in ("killed", "unkilled")
    )
    assert len(killed.rows()) == 8 == len(list_runs(tmp_path / "killed"))
    assert told(killed) == told(unkilled)
    assert killed.best() == unkilled.best()
