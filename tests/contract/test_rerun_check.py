"""`dgcctl rerun RUN --check` with the real trainer: in a clean clone that is installed as usual
(the compiled kernels lie beside its sources, where there are any), with crop and flip on.
"""

import json

import pytest

from dgc.run.events import read_events
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from tests.contract.dvc_project import add_kernels, clone, origin

SMALL = ("data.limit_train=256", "data.limit_val=100", "train.epochs=1", "train.batch_size=32")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rerun")
    made = clone(origin(folder / "origin"), folder / "clone")
    made.kernels = add_kernels(made)
    made.call("python", "-m", "dgcctl", "train", "demo", *SMALL)
    assert read_json(run_of(made).env)["kernels"] == made.kernels
    return made


def run_of(project):
    return RunDir(min((project.folder / "runs").glob("2*")))


def rerun(project, code=0):
    """(document, everything that was said) of a rerun of the first run."""
    said = project.call(
        "python", "-m", "dgcctl", "rerun", run_of(project).id, "--check", "--json", code=code
    )
    return json.loads(said[said.index("{") : said.rindex("}") + 1]), said


@pytest.fixture
def moved_on(project):
    """The checkout has gone on since the run: its code of now would compute something else."""
    path = project.folder / "dgc" / "schedule.py"
    path.write_text(path.read_text().replace("0.5 * lr * (1", "0.51 * lr * (1"))
    project.git("commit", "-qam", "another learning rate")
    yield
    project.git("reset", "-q", "--hard", "HEAD~1")


@pytest.mark.usefixtures("moved_on")
def test_the_demo_repeats_bit_by_bit_from_its_record_while_the_checkout_moved_on(project):
    """Equal bits show that the code of the record ran."""
    found, _ = rerun(project)
    assert found["verdict"] == "bitwise equal"
    assert found["compared_rows"] == 8 + 2
    assert found["tensors"] == []
    assert (
        read_json(RunDir(project.folder / "runs" / found["repeated"]).env)["kernels"]
        == project.kernels
    )
    assert found["circumstances"] == []
    assert read_json(run_of(project).git)["dirty"] is False
    assert project.git("status", "--porcelain") == ""
    assert project.git("worktree", "list").count("\n") == 1


@pytest.mark.usefixtures("moved_on")
def test_with_the_code_of_now_the_first_differing_step_is_named(project):
    said = project.call(
        "python", "-m", "dgcctl", "rerun", run_of(project).id, "--check", "--current-code", code=11
    )
    assert "not reproduced; first difference at step 1: step.lr was 0.1, is now 0.102" in said


def test_one_value_of_the_recipe_changed_by_hand_is_found_at_the_step_where_it_tells(project):
    """Weight decay changes the weights after the first step, so the loss of the second."""
    recipe = run_of(project).recipe
    before = recipe.read_text()
    assert "weight_decay: 0.0001" in before
    recipe.write_text(before.replace("weight_decay: 0.0001", "weight_decay: 0.0002"))
    found, said = rerun(project, code=11)
    recipe.write_text(before)
    assert (found["verdict"], found["first_difference"]["step"]) == ("not reproduced", 2)
    assert "first difference at step 2: step.loss was" in said


def test_verify_recomputes_data_and_macs_of_a_real_run(project):
    said = project.call("python", "-m", "dgcctl", "runs", "verify", run_of(project).id, "--json")
    rows = {
        row["name"]: row["outcome"]
        for row in json.loads(said[said.index("{") : said.rindex("}") + 1])["checks"]
    }
    assert (
        rows["data digest"]
        == rows["MACs at the end of the schedule, executed"]
        == rows["parameters"]
        == rows["git commit"]
        == "ok"
    )
    assert set(rows.values()) == {"ok"}
    assert next(event["kind"] for event in read_events(run_of(project))) == "start"
