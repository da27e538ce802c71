"""Comparing runs: grouping over seeds, differences of two runs, the first step in which a
repetition parts.
"""

import math
import statistics

import orjson
import pytest

import dgc.run
from dgc.errors import UsageError
from dgc.run.events import EventKind, read_events
from dgc.run.files import write_json
from dgc.run.paths import RunDir
from dgc.run.status import State
from dgcctl.cli.main import main
from dgcctl.core.compare.rundiff import diff_runs
from dgcctl.core.compare.seeds import Summary, compare
from dgcctl.core.report.run_view import views
from dgcctl.core.repro.divergence import (
    Comparison,
    check_metrics,
    check_names,
    first_difference,
    parse_tolerances,
    tensor_differences,
)
from dgcctl.core.runs.record import read_record
from tests.unit.run_factory import make_run


@pytest.fixture
def seeds(tmp_path):
    """Two learning rates, three seeds each."""
    return [
        read_record(
            make_run(
                tmp_path / f"20260101T00000{seed}Z-demo-{rate}{seed}",
                f"optim.lr={rate}",
                f"seed={seed}",
            )
        )
        for rate in ("0.1", "0.05")
        for seed in range(3)
    ]


def test_scripts_of_different_names_are_different_groups(seeds, tmp_path):
    """Their configs are equal: it is the name by which a script parts its experiments."""
    runs = []
    for name, seed in (("resnet", 0), ("resnet", 1), ("vgg", 0)):
        with dgc.run.start(name, {"lr": 0.1, "seed": seed}, runs_dir=tmp_path / "own") as run:
            run.log(1, accuracy=seed)
        runs.append(read_record(run.dir))
    groups = compare(runs)
    assert [(group.varied, group.seeds) for group in groups] == [
        ({"name": "resnet"}, [0, 1]),
        ({"name": "vgg"}, [0]),
    ]
    assert [(view.label, view.group) for view in views(runs)] == [
        ("name resnet", 0),
        ("name resnet", 0),
        ("name vgg", 1),
    ]
    assert [group.varied for group in compare(runs[:2])] == [{}]
    assert len(compare(runs, over=["seed", "name"])) == 1
    assert all("name" not in group.varied for group in compare(seeds))


def test_mean_and_standard_deviation_over_seeds(seeds):
    groups = compare(seeds)
    assert [group.varied for group in groups] == [{"optim.lr": 0.1}, {"optim.lr": 0.05}]
    assert [group.seeds for group in groups] == [[0, 1, 2]] * 2
    values = [run.metrics["top1_error"] for run in seeds[:3]]
    found = groups[0].metrics["top1_error"]
    assert (found.mean, found.std, found.n) == (
        statistics.fmean(values),
        statistics.stdev(values),
        3,
    )
    assert groups[0].notes == []


def test_one_run_has_no_standard_deviation():
    assert Summary.of([3.0]) == Summary(3.0, None, 1)


def test_labels_and_places_do_not_part_a_group(tmp_path):
    a = read_record(make_run(tmp_path / "a", "title=one", "data.workers=0"))
    b = read_record(make_run(tmp_path / "b", "title=two", "data.workers=2", "seed=1"))
    assert [group.runs for group in compare([a, b])] == [["a", "b"]]


def test_runs_on_other_data_are_never_averaged(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", "seed=1")
    write_json(b.data, {"digest": "f" * 64})
    groups = compare([read_record(a), read_record(b)])
    assert [group.runs for group in groups] == [["a"], ["b"]]
    assert groups[1].varied == {"data.digest": "f" * 12}


def test_unfinished_runs_are_left_out_and_said(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", "seed=1", state=State.STOPPED)
    (group,) = compare([read_record(a), read_record(b)])
    assert group.metrics["top1_error"].n == 1
    assert group.notes == ["b: stopped, left out"]


def test_what_a_mean_mixes_is_said(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    write_json(b.git, {"commit": "2" * 40})
    (group,) = compare([read_record(a), read_record(b)])
    assert "seed 0 counts once, by its first run a; left out: b" in group.notes
    assert "code differs within the group" in group.notes


def test_a_seed_that_ran_seven_times_counts_once(tmp_path):
    runs = [read_record(make_run(tmp_path / f"a{number}")) for number in range(7)]
    other = read_record(make_run(tmp_path / "b", "seed=1"))
    twice = read_record(make_run(tmp_path / "c", "seed=1", "data.workers=3"))
    twice.metrics["top1_error"] += 1.0
    (group,) = compare([*reversed(runs), twice, other])
    values = [runs[0].metrics["top1_error"], other.metrics["top1_error"]]
    found = group.metrics["top1_error"]
    assert (found.n, found.mean, found.std) == (
        2,
        statistics.fmean(values),
        statistics.stdev(values),
    )
    assert group.counted == ["a0", "b"]
    assert len(group.runs) == 9
    assert group.seeds == [0, 1]
    assert group.notes == [
        "seed 0 counts once, by its first run a0; left out: a1, a2, a3 and 3 more",
        "seed 1 counts once, by its first run b; left out: c (with another result)",
    ]


def test_the_same_seed_at_another_value_of_what_is_averaged_over_is_another_run(tmp_path):
    runs = [read_record(make_run(tmp_path / rate, f"optim.lr={rate}")) for rate in ("0.1", "0.2")]
    (group,) = compare(runs, over=("optim.lr",))
    assert group.metrics["top1_error"].n == 2
    assert group.notes == []


def test_a_key_that_no_recipe_has_is_refused_with_the_near_one(tmp_path):
    run = read_record(make_run(tmp_path / "a"))
    with pytest.raises(
        UsageError, match=r"--over sede: no such recipe key \(did you mean seed\?\)"
    ):
        compare([run], over=("sede",))
    with pytest.raises(UsageError, match=r"--over batch_size can be .* or .*: give the whole key"):
        compare([run], over=("batch_size",))


def test_what_is_averaged_over_may_be_called_by_its_last_part(tmp_path):
    runs = [read_record(make_run(tmp_path / str(lr), f"optim.lr={lr}")) for lr in (0.1, 0.2)]
    (group,) = compare(runs, over=("lr",))
    assert group.metrics["seconds"].n == 2


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"no run directory .*dgcctl runs ls"):
        read_record(RunDir(tmp_path))


# --- two runs -------------------------------------------------------------------------------------


def test_difference_of_two_runs_by_section(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", "optim.lr=0.05")
    write_json(b.env, {"python": "3.99", "torch": {"version": "0"}, "threads": 1, "pid": 7})
    write_json(b.git, {"commit": "2" * 40})
    b.file("git.patch").write_text("+new line\n")
    (b.file("untracked") / "deep").mkdir(parents=True)
    (b.file("untracked") / "deep" / "own.py").write_text("x = 1\n")
    found = diff_runs(read_record(a), read_record(b))
    assert [(row.key, row.a, row.b) for row in found.section("recipe")] == [("optim.lr", 0.1, 0.05)]
    assert [row.key for row in found.section("environment")] == ["python"]
    assert [row.key for row in found.section("code")] == ["commit"]
    assert found.section("data") == []
    assert {row.key for row in found.section("result")} >= {"top1_error", "loss"}
    assert "+x = 1" in found.patch
    assert "+++ b/untracked/deep/own.py" in found.patch
    assert "++new line" in found.patch


def test_a_run_does_not_differ_from_itself(tmp_path):
    facts = read_record(make_run(tmp_path / "a"))
    found = diff_runs(facts, facts)
    assert (found.differences, found.patch) == ([], [])


# --- repetitions ----------------------------------------------------------------------------------


def test_repeated_run_is_bitwise_equal(tmp_path):
    a, b = read_record(make_run(tmp_path / "a")), read_record(make_run(tmp_path / "b"))
    found = Comparison(
        len(a.rows), first_difference(a.rows, b.rows), tensor_differences(a.run, b.run)
    )
    assert found.bitwise
    assert found.verdict == "bitwise equal"


@pytest.mark.parametrize("step", [1, 3, 6])
def test_one_unit_in_the_last_place_is_found_at_its_step(tmp_path, step, monkeypatch):
    a = read_record(make_run(tmp_path / "a"))
    monkeypatch.setenv("FAKE_KICK_STEP", str(step))
    b = read_record(make_run(tmp_path / "b"))
    found = first_difference(a.rows, b.rows)
    assert (found.step, found.kind, found.key) == (step, "step", "loss")
    assert found.repeated == math.nextafter(found.recorded, 9.0)
    assert (
        str(found) == f"first difference at step {step}: step.loss was {found.recorded}, is now"
        f" {found.repeated}"
    )
    assert tensor_differences(a.run, b.run) == ["model.safetensors"]


def test_a_shorter_repetition_differs_at_the_first_step_it_lacks(tmp_path):
    rows = read_record(make_run(tmp_path / "a")).rows
    found = first_difference(rows, rows[:3])
    assert (found.step, found.key) == (4, "row")
    assert str(found) == f"first difference at step 4: step.row was {len(rows)} rows, is now 3 rows"


def test_nothing_computed_is_not_called_equal():
    assert not Comparison(0, None).bitwise


def test_metrics_within_and_outside_a_tolerance(tmp_path, monkeypatch):
    a = read_record(make_run(tmp_path / "a"))
    monkeypatch.setenv("FAKE_KICK_STEP", "6")
    b = read_record(make_run(tmp_path / "b"))
    strict = {check.name: check for check in check_metrics(a.rows, b.rows, {})}
    assert not strict["eval.top1_error"].within
    assert strict["step.lr"].within
    loose = check_metrics(a.rows, b.rows, parse_tolerances(["top1_error=0.1", "1e-6"]))
    assert all(check.within for check in loose)
    assert {check.name: check.tolerance for check in loose}["eval.top1_error"] == 0.1
    assert Comparison(7, first_difference(a.rows, b.rows), [], loose).verdict == "within tolerance"
    assert (
        Comparison(7, first_difference(a.rows, b.rows), [], list(strict.values())).verdict
        == "not reproduced"
    )


def test_what_is_named_is_what_counts(tmp_path, monkeypatch):
    """The other metrics are shown, and may differ."""
    a = read_record(make_run(tmp_path / "a"))
    monkeypatch.setenv("FAKE_KICK_STEP", "6")
    b = read_record(make_run(tmp_path / "b"))
    parted = first_difference(a.rows, b.rows)
    checks = check_metrics(a.rows, b.rows, parse_tolerances(["top1_error=0.5"]))
    assert any(not check.within for check in checks)
    assert Comparison(7, parted, ["model.safetensors"], checks).verdict == "within tolerance"
    tight = check_metrics(a.rows, b.rows, parse_tolerances(["top1_error=0"]))
    found = Comparison(7, parted, [], tight)
    assert found.verdict == "not reproduced"
    assert [line.partition(" is off by ")[0] for line in found.outside] == ["eval.top1_error"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "top1_eror",
            (
                r"--tolerance top1_eror: no metric of the run is called so \(did you mean"
                r" top1_error\?\)"
            ),
        ),
        ("eval.top1_eror", r"did you mean eval.top1_error\?"),
        ("zzzzz", r"metrics: eval.epoch, "),
    ],
)
def test_a_misspelt_metric_is_refused_with_the_near_name(tmp_path, given, said):
    rows = read_record(make_run(tmp_path / "a")).rows
    for check in (
        lambda: check_metrics(rows, rows, {given: 0.5}),
        lambda: check_names(rows, {given: 0.5}),
    ):
        with pytest.raises(UsageError, match=said):
            check()


def test_a_metric_that_is_given_twice_is_refused():
    with pytest.raises(UsageError, match="top1_error is given twice"):
        parse_tolerances(["top1_error=1", "top1_error=2"])


def test_equal_ends_of_unequal_logs_are_no_reproduction_unless_a_tolerance_is_asked(tmp_path):
    rows = read_record(make_run(tmp_path / "a")).rows
    changed = [{**row, "loss": 9.0} if row["step"] == 2 else row for row in rows]
    for tolerances, verdict in (({}, "not reproduced"), ({"*": 0.0}, "within tolerance")):
        checks = check_metrics(rows, changed, tolerances)
        assert Comparison(7, first_difference(rows, changed), [], checks).verdict == verdict


def test_a_metric_that_is_gone_is_outside_every_tolerance(tmp_path):
    rows = read_record(make_run(tmp_path / "a")).rows
    steps = [row for row in rows if row["kind"] == EventKind.STEP]
    checks = {check.name: check for check in check_metrics(rows, steps, {"*": 1e9})}
    assert not checks["eval.top1_error"].within


@pytest.mark.parametrize("given", ["top1_error", "top1_error=x", "=-1", "nan", "loss=inf"])
def test_a_wrong_tolerance_is_one_line(given):
    with pytest.raises(UsageError, match=r"--tolerance .*: expected METRIC=NUMBER"):
        parse_tolerances([given])


def test_comparing_needs_no_order_of_keys(tmp_path):
    rows = read_record(make_run(tmp_path / "a")).rows
    turned = [orjson.loads(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)) for row in rows]
    assert first_difference(rows, turned) is None
    assert next(event["kind"] for event in read_events(RunDir(tmp_path / "a"))) == "start"


def test_a_row_names_its_runs(tmp_path, capsys):
    for name, seed, lr in (("a1", 0, 0.1), ("a2", 1, 0.1), ("b1", 0, 0.3)):
        path = tmp_path / f"20260101T000000Z-demo-{name}"
        make_run(path, f"seed={seed}", f"optim.lr={lr}")
    given = ["runs", "compare", "state=done", "--runs-dir", str(tmp_path)]
    assert main(given) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][-1] == "runs"
    assert [line[-2:] for line in lines[1:]] == [["demo-a2", "+1"], [lines[2][-2], "demo-b1"]]
    assert main([*given, "--csv"]) == 0
    head, first, _ = capsys.readouterr().out.splitlines()
    assert head.endswith(",run_ids")
    assert first.endswith(",20260101T000000Z-demo-a1 20260101T000000Z-demo-a2")
    assert main([*given, "--latex"]) == 0
    assert "demo-" not in capsys.readouterr().out
