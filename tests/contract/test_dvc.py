"""The whole DVC story in a fresh clone. The reduced form trains the demo on few images; the full
form is `slow`.
"""

import csv
import json
import os
import signal
import subprocess

import pytest

from dgc.run.events import EventKind, live_rows, metric_digest, read_events
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from tests.contract.dvc_project import clone, origin
from tests.waiting import GUARD, wait_for

ALL = ["prepare", "train", "evaluate", "report"]
SMALL = {
    "recipes/demo.yaml": ("  workers: 0", "  workers: 0\n  limit_train: 256\n  limit_val: 100")
}
OUT = "results/demo"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = origin(tmp_path_factory.mktemp("dvc") / "origin", SMALL)
    edits = {
        "epochs: 6": "epochs: 2",
        "batch_size: 64": "batch_size: 32\n  log_every: 4",
        "every_seconds: 60": "every_steps: 4",
    }
    project = clone(folder, folder.parent / "edit")
    for old, new in edits.items():
        project.edit("recipes/demo.yaml", old, new)
    project.git("commit", "-qam", "small")
    project.git("push", "-q", "origin", "HEAD:small")
    subprocess.run(["git", "-C", str(folder), "checkout", "-q", "small"], check=True)
    return folder


@pytest.fixture(scope="module")
def project(source):
    """A clone in which the demo was reproduced once and committed."""
    made = clone(source, source.parent / "clone")
    assert made.ran() == ALL
    assert len(runs(made)) == 1
    made.git("add", "-A")
    made.git("commit", "-qm", "reproduced")
    return made


def figures(project):
    return json.loads((project.folder / OUT / "evaluation.json").read_text())


def runs(project):
    return sorted((project.folder / "runs").glob("2*"))


def test_a_fresh_clone_reproduces_the_demo_and_a_second_time_does_nothing(project):
    before = runs(project)
    assert project.ran() == []
    assert "Data and pipelines are up to date" in project.dvc("status", *ALL)
    assert (project.folder / OUT / "report.html").stat().st_size > 20_000
    assert runs(project) == before


def test_what_dvc_versions_is_what_the_run_directory_says(project):
    run, exported = RunDir(runs(project)[0]), RunDir(project.folder / OUT / "run")
    assert exported.events.read_bytes() == run.events.read_bytes()
    assert read_json(exported.metrics) == read_json(run.metrics)
    for key in ("top1_error", "top5_error", "macs_dense", "macs_promised", "macs_executed"):
        assert figures(project)[key] == pytest.approx(read_json(run.metrics)[key], abs=1e-9), key
    assert project.git("status", "--porcelain") == ""


def test_metrics_and_plots_are_shown(project):
    shown = json.loads(project.dvc("metrics", "show", "--json"))
    value = shown[""]["data"][f"{OUT}/evaluation.json"]["data"]["top1_error"]
    assert value == figures(project)["top1_error"]
    page = project.folder / "dvc_plots" / "index.html"
    project.dvc("plots", "show")
    text = page.read_text()
    assert "training loss" in text
    assert "top-1 error on held-out images" in text
    with (project.folder / OUT / "run" / "plots" / "eval.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["top1_error"] in text
    page.unlink()
    page.parent.rmdir()


def test_a_changed_value_runs_again_just_what_depends_on_it(project):
    recipe = project.folder / "recipes" / "demo.yaml"
    before = recipe.read_text()
    project.edit("recipes/demo.yaml", "title: ", "title: A new ")
    assert project.ran() == ["report"]
    project.edit("recipes/demo.yaml", "eval:\n  batch_size: 250", "eval:\n  batch_size: 50")
    assert project.ran() == ["evaluate"]
    project.edit("recipes/demo.yaml", "every_steps: 4", "every_steps: 5")
    assert project.ran() == []
    recipe.write_text(before)
    assert project.ran() == []


def test_an_experiment_changes_a_value_and_the_difference_is_shown(project):
    project.dvc("exp", "run", "-S", "recipes/demo.yaml:optim.lr=0.02")
    changed = json.loads(project.dvc("metrics", "diff", "--json"))[f"{OUT}/evaluation.json"]
    assert changed["loss"]["diff"] != 0
    params = json.loads(project.dvc("params", "diff", "--json"))["recipes/demo.yaml"]
    assert (params["optim.lr"]["old"], params["optim.lr"]["new"]) == (0.1, 0.02)
    assert "optim.lr" in project.dvc("exp", "show", "--csv")
    project.git("checkout", "-q", ".")
    project.dvc("checkout", "--force", "--allow-missing")
    assert project.ran() == []


def test_a_pushed_result_is_pulled_into_another_clone_and_nothing_is_run(project):
    project.dvc("remote", "add", "-d", "-f", "store", str(project.folder.parent / "store"))
    project.dvc("push")
    project.git("commit", "-qam", "a remote")
    other = clone(project.folder, project.folder.parent / "other")
    other.dvc("pull", "--allow-missing")
    assert figures(other) == figures(project)
    assert other.ran() == []
    assert runs(other) == []


def interrupted(project, number, steps):
    """Start `dvc repro`, and send a signal to its process group once training is at `steps`."""
    dvc = subprocess.Popen(
        ["dvc", "repro", "train"], cwd=project.folder, env=project.env, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    reached = f"checkpoints/step-{steps:06d}"
    wait_for(lambda: any((run / reached).exists() for run in runs(project)), reached, by=dvc)
    os.killpg(dvc.pid, number)
    dvc.wait(timeout=GUARD)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_an_interrupted_repro_resumes_the_training_and_gives_the_same_numbers(
    source, project, tmp_path, number
):
    broken = clone(source, tmp_path / "clone")
    interrupted(broken, number, 4)
    assert not (broken.folder / OUT / "run").exists()
    assert broken.ran() == (
        ALL[1:] if "prepare" in (broken.folder / "dvc.lock").read_text() else ALL
    )
    (run,) = runs(broken)
    events = read_events(RunDir(run))
    assert [event["kind"] for event in events].count(EventKind.START) == 1
    assert metric_digest(events) == metric_digest(read_events(RunDir(runs(project)[0])))
    assert len(live_rows(events)) == len(live_rows(read_events(RunDir(runs(project)[0]))))
    if number == signal.SIGINT:
        assert EventKind.RESUME in [event["kind"] for event in events]


def test_a_recipe_without_its_data_says_what_is_missing(project):
    said = project.dvc("repro", "pipelines/dvc.yaml:report@cifar10_h4", code=255)
    assert "data/cifar10" in said
    assert "Traceback" not in said


def test_every_recipe_of_the_paper_is_a_target(project):
    listed = project.dvc("stage", "list", "pipelines/dvc.yaml")
    for name in ("cifar10_h4", "cifar100_h4", "imagenet_condensenet_h4", "imagenet_resnet18_h4"):
        for stage in ALL:
            assert f"{stage}@{name}" in listed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_demo_in_a_fresh_clone_and_once_more_from_its_record(tmp_path):
    made = clone(origin(tmp_path / "origin"), tmp_path / "clone")
    assert made.ran() == ALL
    assert figures(made)["top1_error"] < 40
    assert made.ran() == []
    said = made.call(
        "python", "-m", "dgcctl", "rerun", runs(made)[0].name, "--check", timeout=GUARD
    )
    assert said.splitlines()[-1].startswith("bitwise equal")
