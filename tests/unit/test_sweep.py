"""Sweeps: the grid, the plan, and trials that are killed, fail, and go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.errors import IntegrityError, LockedError, RecipeError, UsageError
from dgc.recipe.load import load_recipe
from dgc.run.events import read_events
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, Status, read_status, write_status
from dgcctl.cli.main import main
from dgcctl.core.runs import frames
from dgcctl.core.sweep import pool
from dgcctl.core.sweep.grid import parse_axis, trials
from dgcctl.core.sweep.plan import (
    TrialState,
    find_sweep,
    list_sweeps,
    open_or_create,
    open_sweep,
    trial_rows,
)
from dgcctl.core.sweep.pool import run_sweep, visible_gpus
from tests.unit.run_factory import make_run
from tests.waiting import GUARD, wait_for

TRAINER = (sys.executable, str(Path(__file__).with_name("fake_trainer.py")))


@pytest.fixture(autouse=True)
def package_is_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def plan(tmp_path, *axes, name=""):
    return open_or_create(tmp_path, "demo", [], [parse_axis(axis) for axis in axes], name)


def quietly(sweep, **options):
    return run_sweep(sweep, trainer=TRAINER, say=lambda text: None, **options)


# --- what may run ---------------------------------------------------------------------------------


def test_code_that_nobody_trusted_is_refused_in_any_trial_before_a_plan_is_made(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("dgcctl.cli.sweep.pool.run_sweep", lambda *_, **__: pytest.fail("began"))
    words = ["sweep", "demo", "data.name=fashion_mnist,python:mine.images:build"]
    words += ["--runs-dir", str(tmp_path)]
    for more in ((), ("--dry-run",)):
        assert main([*words, *more]) == 5
        assert "data.name = python:mine.images:build: this runs code of mine" in (
            capsys.readouterr().err
        )
    assert not list(tmp_path.iterdir())
    axis = parse_axis(words[2])
    open_or_create(tmp_path, "demo", [], [axis])  # planned by somebody who trusts it
    assert main(words) == 5


def test_a_sweep_with_wrong_values_names_all_of_them(tmp_path, capsys):
    assert main(["sweep", "demo", "optim.lr=-1,-2", "--runs-dir", str(tmp_path)]) == 2
    assert [line.count(f"optim.lr is {value}") for line, value in
            zip(capsys.readouterr().err.splitlines(), (-1, -2), strict=True)] == [1, 1]  # fmt: skip


# --- the grid -------------------------------------------------------------------------------------


def test_axes_are_lists_ranges_and_both():
    assert parse_axis("optim.lr=0.05,0.1").values == ("0.05", "0.1")
    assert parse_axis("seed=1..9:4").values == ("1", "5", "9")
    assert parse_axis("model.gate_factor=0.25..0.75:0.25").values == ("0.25", "0.5", "0.75")
    assert parse_axis("optim.lr=1e-4..3e-4:1e-4").values == ("0.0001", "0.0002", "0.0003")
    # even ratios; both ends as they were given
    assert parse_axis("optim.lr=log:0.01..0.3:4").values == ("0.01", "0.03107", "0.09655", "0.3")
    assert parse_axis("data.dir=../a..b").values == ("../a..b",)
    assert parse_axis("seed=0..2,7").values == ("0", "1", "2", "7")
    assert parse_axis("model.stages=[2,2,2],[4,4,4]").values == ("[2,2,2]", "[4,4,4]")


def test_trials_turn_the_last_axis_fastest():
    axes = [parse_axis("optim.lr=0.1,0.2"), parse_axis("seed=0..1")]
    assert trials(axes) == [
        ["optim.lr=0.1", "seed=0"],
        ["optim.lr=0.1", "seed=1"],
        ["optim.lr=0.2", "seed=0"],
        ["optim.lr=0.2", "seed=1"],
    ]


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("optim.lr", "write a swept key as key=value"),
        ("optim.lr=0.1,,0.2", "an empty value between commas"),
        ("seed=1,0..2", "1 stands twice"),
        ("seed=5..2", "goes down: the smaller number comes first, as 2..5"),
        ("optim.lr=log:0.3..0.01:4", "as log:0.01..0.3:4"),
        ("model.gate_factor=0.25..0.75", "give a step, as 0.25..0.75:0.125"),
        ("seed=0..9:0", "0 is no step"),
        ("optim.lr=log:0.01..0.3", "say how many values"),
        ("optim.lr=log:0..0.3:4", "begins above 0"),
        ("optim.lr=log:a..b", "log:0.01..0.3"),
        ("seed=0..99999", "100,000 values"),
        ("optim.lr=0.1,0.10", "0.1 and 0.10 are the same value, so two trials would be the same"),
        ("optim.lr=0.1,0.2,1e-1", "0.1 and 1e-1 are the same value"),
        ("model.stages=[2, 2],[2,2]", r"\[2, 2\] and \[2,2\] are the same value"),
        ("train.compile=true,True", "true and True are the same value"),
        ("title='a','b", "' is missing at the end of a value"),
        ("model.stages=[2,2", "is missing at the end of a value"),
    ],
)
def test_a_wrong_axis_is_one_line(axis, said):
    with pytest.raises(UsageError, match=said):
        parse_axis(axis)


SPLIT = {
    r"title=a\,b,c": ("a,b", "c"),
    "title='a, b',c": ("'a, b'", "c"),
    'title="a, b","c"': ('"a, b"', '"c"'),
    r"""title="say \"a, b\"",c""": (r'''"say \"a, b\""''', "c"),
    "title='it''s a, b',c": ("'it''s a, b'", "c"),
    "title=it's,what": ("it's", "what"),
    r"data.dir=C:\x,D:\y": (r"C:\x", r"D:\y"),
    "tags=['a,b', c],[d]": ("['a,b', c]", "[d]"),
    "origin={seed: ours},{seed: theirs}": ("{seed: ours}", "{seed: theirs}"),
    "title='0..2',x": ("'0..2'", "x"),
}


@pytest.mark.parametrize("axis", SPLIT)
def test_commas_quotes_and_escapes_inside_values(axis):
    assert parse_axis(axis).values == SPLIT[axis]


def test_a_value_with_a_comma_arrives_in_the_recipe(tmp_path):
    sweep = plan(tmp_path, r"title=one\, two,'three, four'", name="titles")
    titles = [
        load_recipe(sweep.path / "base.yaml", trial.overrides).title for trial in sweep.plan.trials
    ]
    assert titles == ["one, two", "three, four"]


def test_values_that_resolve_to_one_recipe_are_refused(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"trials 0 and 1 are the same recipe: model.bottleneck=null and model.bott",
    ):
        plan(tmp_path, "model.bottleneck=null,4")
    assert list(tmp_path.iterdir()) == []


def test_places_that_compute_the_same_may_still_be_swept(tmp_path):
    assert len(plan(tmp_path, "data.workers=0,2").plan.trials) == 2


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "a/b", "..", ".hidden", "-x", "a b", "a\nb", "latest", "x" * 65]
)
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path, name):
    runs = tmp_path / "runs"
    with pytest.raises(UsageError, match=r"--name .*: (should be a name of|means the newest)"):
        plan(runs, "seed=0..1", name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", ["../precious", "/tmp/precious", "..", ""])
def test_a_plan_whose_trial_lies_elsewhere_is_refused(tmp_path, run):
    sweep = plan(tmp_path, "seed=0..0")
    path = sweep.path / "plan.json"
    value = read_json(path)
    value["trials"][0]["run"] = run
    write_json(path, value)
    with pytest.raises(
        IntegrityError, match=r"plan.json: trial 0 has the run .*, which is no name"
    ):
        open_sweep(sweep.path)


def test_what_was_recorded_of_the_code_is_said_once_for_all_trials(tmp_path, monkeypatch):
    sentences = [("warning", "1 file left out of the record: x.py (a symbolic link)")]
    monkeypatch.setattr(pool, "sentences", lambda facts: sentences)
    said = []
    run_sweep(plan(tmp_path, "seed=0..1"), trainer=TRAINER, say=said.append)
    assert said.count(f"warning: {sentences[0][1]}") == 1


def test_a_key_swept_twice_is_refused():
    with pytest.raises(UsageError, match="seed is swept twice"):
        trials([parse_axis("seed=0"), parse_axis("seed=1")])


# --- the plan -------------------------------------------------------------------------------------


def test_every_trial_is_checked_before_anything_is_written(tmp_path):
    with pytest.raises(RecipeError, match="momentum"):
        plan(tmp_path, "optim.momentum=0.9,1.5")
    assert list(tmp_path.iterdir()) == []


def test_the_same_values_are_the_same_sweep_and_other_values_another(tmp_path):
    first = plan(tmp_path, "seed=0..2")
    assert plan(tmp_path, "seed=0..2").plan == first.plan
    assert plan(tmp_path, "seed=0..3").plan.id != first.plan.id
    assert next(sweep.plan.id for sweep in list_sweeps(tmp_path)) == first.plan.id


def test_a_name_with_other_values_is_refused(tmp_path):
    plan(tmp_path, "seed=0..2", name="mine")
    with pytest.raises(UsageError, match="planned with other values"):
        plan(tmp_path, "seed=0..3", name="mine")


def test_a_sweep_is_found_by_prefix_and_a_wrong_name_lists_the_known(tmp_path):
    sweep = plan(tmp_path, "seed=0..1")
    assert find_sweep(tmp_path, "demo").plan == sweep.plan
    assert find_sweep(tmp_path, "latest").plan == sweep.plan
    with pytest.raises(UsageError, match=f"no such sweep \\({sweep.plan.id}\\)"):
        find_sweep(tmp_path, "other")


# --- running --------------------------------------------------------------------------------------


def test_all_trials_run_each_with_its_own_values(tmp_path):
    sweep = plan(tmp_path, "optim.lr=0.05,0.1", "seed=0..1")
    outcome = quietly(sweep, jobs=2)
    assert sorted(outcome.done) == [0, 1, 2, 3]
    assert not outcome.failed
    rates = [read_events(sweep.run_dir(trial))[1]["lr"] for trial in sweep.plan.trials]
    assert rates == [0.05, 0.05, 0.1, 0.1]
    assert len({row["top1_error"] for row in trial_rows(sweep)}) == 4


def test_a_failed_trial_does_not_stop_the_rest_and_is_not_tried_again_unasked(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_FAIL", "lr: 0.05")
    sweep = plan(tmp_path, "optim.lr=0.05,0.1,0.2")
    assert quietly(sweep).failed == {0: 9}
    assert [state.value for state in sweep.states().values()] == ["failed", "done", "done"]
    monkeypatch.delenv("FAKE_FAIL")
    assert quietly(sweep).done == []
    assert quietly(sweep, retry_failed=True).done == [0]


def test_fail_fast_starts_nothing_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAIL", "lr: 0.05")
    sweep = plan(tmp_path, "optim.lr=0.05,0.1,0.2")
    assert quietly(sweep, fail_fast=True).failed == {0: 9}
    assert [state.value for state in sweep.states().values()] == ["failed", "pending", "pending"]


RUNNER = """
import sys
from pathlib import Path
from dgcctl.core.sweep.pool import run_sweep
from dgcctl.core.sweep.plan import find_sweep
outcome = run_sweep(find_sweep(Path(sys.argv[1]), "latest"), trainer=sys.argv[2:], jobs=1)
sys.exit(outcome.interrupted)
"""


def start_runner(tmp_path):
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path), *TRAINER], stdout=subprocess.DEVNULL
    )


def test_killed_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    """kill -9 of the sweep and of its trainer: done trials stay, the cut one resumes, none runs
    twice.
    """
    monkeypatch.setenv("FAKE_HOLD", "seed: 1:3")
    sweep = plan(tmp_path, "seed=0..2")
    runner = start_runner(tmp_path)
    second = sweep.run_dir(sweep.plan.trials[1])
    wait_for(second.file("held").exists, "the held step", by=runner)
    runner.kill()
    runner.wait()
    os.kill(read_status(second).pid, signal.SIGKILL)
    wait_for(
        lambda: sweep.state(sweep.plan.trials[1]) is TrialState.DIED, "the trainer's end", by=None
    )
    before = [event["kind"] for event in read_events(sweep.run_dir(sweep.plan.trials[0]))]
    monkeypatch.delenv("FAKE_HOLD")
    assert quietly(sweep).done == [1, 2]
    assert [event["kind"] for event in read_events(sweep.run_dir(sweep.plan.trials[0]))] == before
    kinds = [event["kind"] for event in read_events(second)]
    assert kinds.count("start") == kinds.count("resume") == 1
    assert len(list(tmp_path.iterdir())) == 4  # three runs and `sweeps`


def test_a_trial_that_outlived_the_killed_sweep_is_waited_for_and_not_started_twice(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_HOLD", "seed: 0:1")
    sweep = plan(tmp_path, "seed=0..1")
    runner = start_runner(tmp_path)
    first = sweep.run_dir(sweep.plan.trials[0])
    wait_for(first.file("held").exists, "the held step", by=runner)
    runner.kill()
    runner.wait()
    assert sweep.state(sweep.plan.trials[0]) is TrialState.RUNNING
    first.file("held").unlink()
    monkeypatch.delenv("FAKE_HOLD")
    assert quietly(sweep).done == [0, 1]
    assert [event["kind"] for event in read_events(first)].count("start") == 1


def test_a_trial_that_died_before_its_first_checkpoint_begins_anew(tmp_path):
    sweep = plan(tmp_path, "seed=0..0")
    run = sweep.run_dir(sweep.plan.trials[0])
    run.path.mkdir()
    write_status(run, Status(state=State.RUNNING, pid=2**22 + 1, start_token=1.0))
    run.file("leftover").write_text("x")
    assert quietly(sweep).done == [0]
    assert not run.file("leftover").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_trainer_save_and_the_next_call_goes_on(
    tmp_path, monkeypatch, number, code
):
    monkeypatch.setenv("FAKE_HOLD", "seed: 0:1")
    sweep = plan(tmp_path, "seed=0..1")
    runner = start_runner(tmp_path)
    run = sweep.run_dir(sweep.plan.trials[0])
    wait_for(run.file("held").exists, "the held step", by=runner)
    runner.send_signal(number)
    assert runner.wait(timeout=GUARD) == code
    assert sweep.state(sweep.plan.trials[0]) is TrialState.STOPPED
    monkeypatch.delenv("FAKE_HOLD")
    assert quietly(sweep).done == [0, 1]


def test_two_processes_do_not_run_one_sweep(tmp_path):
    sweep = plan(tmp_path, "seed=0..0")
    with (
        pool._owned(sweep.path),
        pytest.raises(LockedError, match="another process runs this sweep"),
    ):
        quietly(sweep)


def test_each_slot_has_its_own_gpu(tmp_path):
    script = "import os,sys; open(sys.argv[2]+'/gpu','w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    sweep = plan(tmp_path, "seed=0..3")
    run_sweep(
        sweep,
        trainer=(sys.executable, "-c", script),
        jobs=2,
        gpus=["4", "6"],
        say=lambda text: None,
    )
    used = [(sweep.run_dir(trial).path / "gpu").read_text() for trial in sweep.plan.trials]
    assert set(used) == {"4", "6"}


def test_visible_gpus_are_those_the_environment_allows(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-aa")
    assert visible_gpus() == ["2", "GPU-aa"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_a_run_folder_is_a_run_like_any_other(tmp_path):
    sweep = plan(tmp_path, "seed=0..0")
    quietly(sweep)
    run = sweep.run_dir(sweep.plan.trials[0])
    assert isinstance(run, RunDir)
    assert read_status(run).state == "done"
    assert run.file("sweep.json").is_file()


def test_lists_know_of_which_sweep_or_search_a_run_is_a_trial(tmp_path, capsys):
    sweep = plan(tmp_path, "seed=0..1")
    quietly(sweep)
    (tmp_path / "searches" / "hunt").mkdir(parents=True)
    write_json(make_run(tmp_path / "other").file("sweep.json"), {"sweep": "hunt", "trial": 7})
    make_run(tmp_path / "alone")
    damaged = make_run(tmp_path / "damaged")
    damaged.file("sweep.json").write_bytes(b"{")

    def ls(*words):
        assert main(["runs", "ls", *words, "--csv", "--runs-dir", str(tmp_path)]) == 0
        return capsys.readouterr().out.splitlines()[1:]

    names = [trial.run for trial in sweep.plan.trials]
    assert ls(f"sweep={sweep.plan.id}", "--columns", "trial", "--sort", "trial") == [
        f"{name},{index}" for index, name in enumerate(names)
    ]
    assert ls("search=hunt", "--columns", "search,trial,sweep") == ["other,hunt,7,"]
    assert len(ls("trial!=null")) == 3
    assert ls("sweep=x") == []
    frame = frames.runs(f"sweep={sweep.plan.id}", runs_dir=tmp_path).frame()
    assert sorted(frame["trial"]) == [0, 1]


def test_where_no_trial_is_none_is_found(tmp_path, capsys):
    make_run(tmp_path / "alone")
    for words in (
        ["sweep=x"],
        ["search=x", "trial=0"],
        ["--columns", "sweep,trial", "--sort", "trial"],
    ):
        assert main(["runs", "ls", *words, "--runs-dir", str(tmp_path)]) == 0
    assert "alone      -      -" in capsys.readouterr().out
