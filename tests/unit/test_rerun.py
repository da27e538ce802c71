"""rerun: the code of the record, not the code that is here; what came out the same, and what did
not.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dgc.errors import IntegrityError, UsageError
from dgc.run import provenance
from dgc.run.files import read_json, write_json
from dgc.run.paths import RunDir
from dgc.run.status import State, read_status, write_status
from dgcctl.cli.main import main
from dgcctl.core.repro import gitstate
from dgcctl.core.repro import repetition as again
from tests.unit.run_factory import make_run

HERE = Path(__file__).resolve()
PACKAGE = HERE.parents[2] / "dgc"
# keeps an editable install of another checkout from hiding ours
OWN_CODE = HERE.parents[1] / "contract" / "own_code"
NO_TORCH = ["errors.py", "settings.py", "schedule.py", "recipe", "run"]


def git(folder, *words):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path):
    """A checkout with a trainer without torch; `dgc/kick.py` decides what it computes."""
    root = tmp_path / "project"
    package = root / "dgc"
    (package / "train").mkdir(parents=True)
    for name in NO_TORCH:
        if (PACKAGE / name).is_dir():
            shutil.copytree(PACKAGE / name, package / name)
        else:
            shutil.copy(PACKAGE / name, package / name)
    shutil.copytree(PACKAGE.parent / "recipes", root / "recipes")
    (package / "__init__.py").write_text("")
    (package / "kick.py").write_text("KICK = 0\n")
    source = HERE.with_name("fake_trainer.py").read_text()
    kicked = source.replace(
        'int(os.environ.get("FAKE_KICK_STEP", "0"))', '__import__("dgc.kick").kick.KICK'
    )
    assert kicked != source
    (package / "train" / "__init__.py").write_text("")
    (package / "train" / "__main__.py").write_text(kicked)
    git(tmp_path, "init", "-q", str(root))
    (root / ".gitignore").write_text("__pycache__/\nruns/\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def run_in(project, name, *overrides):
    """A run as `dgcctl train` makes it, in the project's own code."""
    run = make_run(project / "runs" / f"20260101T000000Z-demo-{name}", *overrides)
    recipe = run.recipe.read_bytes()
    shutil.rmtree(run.path)
    run.path.mkdir(parents=True)
    run.recipe.write_bytes(recipe)
    write_json(run.git, provenance.code_facts(project, run))
    write_json(run.argv, {"argv": ["dgcctl", "train"], "cwd": str(project)})
    command = [sys.executable, "-m", "dgc.train", "--run-dir", str(run.path)]
    env = {**os.environ, "PYTHONPATH": f"{project}{os.pathsep}{OWN_CODE}"}
    subprocess.run(command, cwd=project, check=True, env=env)
    return run


def repeat(project, run, **options):
    repeated = again.repeat(run, project / "runs", repository=project, **options)
    return again.compare(run, repeated, {})


def test_committed_code_is_repeated_bit_by_bit(project):
    found = repeat(project, run_in(project, "a"))
    assert found.comparison.bitwise
    assert read_json(found.repeated.file("rerun.json"))["of"] == found.recorded.id


def test_the_code_of_the_record_runs_and_not_the_one_that_is_here(project):
    run = run_in(project, "a")
    (project / "dgc" / "kick.py").write_text("KICK = 4\n")
    git(project, "commit", "-qam", "changes what is computed")
    assert repeat(project, run).comparison.bitwise


def test_with_the_code_that_is_here_the_first_differing_step_is_named(project, monkeypatch):
    run = run_in(project, "a")
    (project / "dgc" / "kick.py").write_text("KICK = 4\n")
    monkeypatch.setattr(again, "_own_code", lambda: project)
    found = repeat(project, run, current_code=True)
    assert not found.comparison.bitwise
    assert (found.comparison.first.step, found.comparison.first.key) == (4, "loss")
    assert found.comparison.verdict == "not reproduced"


def test_uncommitted_changes_and_untracked_sources_are_restored(project):
    (project / "dgc" / "kick.py").write_text("from dgc.own import KICK\n")
    (project / "dgc" / "own.py").write_text("KICK = 2\n")
    run = run_in(project, "a")
    assert read_json(run.git)["dirty"]
    plain = run_in(project, "b")
    git(project, "checkout", "-q", "dgc/kick.py")
    (project / "dgc" / "own.py").unlink()
    found = repeat(project, run)
    assert found.comparison.bitwise
    git(project, "status")
    assert subprocess.check_output(["git", "-C", str(project), "status", "--porcelain"]) == b""
    assert again.compare(plain, found.repeated, {}).comparison.bitwise


def test_a_link_that_leads_out_of_the_checkout_is_restored_by_its_content(project, tmp_path):
    """Tracked or not: what the link led to may have changed since, or be gone."""
    (tmp_path / "shared.py").write_text("KICK = 2\n")
    (project / "dgc" / "kick.py").write_text("from dgc.linked import KICK\nimport dgc.own\n")
    for name in ("linked.py", "own.py"):
        (project / "dgc" / name).symlink_to(tmp_path / "shared.py")
    git(project, "add", "dgc/linked.py", "dgc/kick.py")
    git(project, "commit", "-qm", "a link")
    run = run_in(project, "a")
    (tmp_path / "shared.py").write_text("KICK = 4\n")
    assert repeat(project, run).comparison.bitwise
    assert (tmp_path / "shared.py").read_text() == "KICK = 4\n"


def test_one_value_of_the_record_changed_by_hand_is_found(project):
    run = run_in(project, "a")
    again_run = again.repeat(run, project / "runs", repository=project)
    lines = run.events.read_bytes().splitlines(keepends=True)
    from dgc.run.events import decode_event, encode_event

    for index, line in enumerate(lines):
        event = decode_event(line.rstrip(b"\n"))
        if event["kind"] == "step" and event["step"] == 3:
            fields = {key: value for key, value in event.items() if key not in ("kind", "t", "crc")}
            lines[index] = encode_event(
                "step", {**fields, "loss": fields["loss"] + 1e-12}, now=event["t"]
            )
    run.events.write_bytes(b"".join(lines))
    found = again.compare(run, again_run, {})
    assert found.comparison.first.step == 3
    assert not found.comparison.bitwise


def test_no_worktree_is_left_behind(project):
    run = run_in(project, "a")
    repeat(project, run)
    assert (
        subprocess.check_output(["git", "-C", str(project), "worktree", "list"]).count(b"\n") == 1
    )


def test_a_commit_that_is_not_here_is_one_line(project):
    run = run_in(project, "a")
    write_json(run.git, {**read_json(run.git), "commit": "0" * 40, "code": "another"})
    with pytest.raises(
        UsageError, match=r"commit 0{40} is not in .*: fetch it, or use --current-code"
    ):
        repeat(project, run)


def test_a_run_without_git_is_one_line(project):
    run = run_in(project, "a")
    write_json(run.git, {"commit": None})
    with pytest.raises(UsageError, match=r"no git commit was recorded.*--current-code"):
        repeat(project, run)


def test_a_patch_that_does_not_apply_is_an_integrity_error(project):
    (project / "dgc" / "kick.py").write_text("KICK = 2\n")
    run = run_in(project, "a")
    patch = run.file("git.patch")
    patch.write_text(patch.read_text().replace("KICK = 0", "KICK = 7"))
    with pytest.raises(IntegrityError, match=r"does not apply to the recorded commit"):
        repeat(project, run)


@pytest.mark.parametrize("name", ["../../outside.py", "dgc/own.py", ".git/hooks/x.py", "link/x.py"])
def test_a_copy_that_was_changed_or_leads_elsewhere_is_refused(project, name):
    """A record is data: what it restores is run, and nothing may be written beside the worktree."""
    (project / "dgc" / "own.py").write_text("KICK = 2\n")
    (project / "link").symlink_to(project.parent / "elsewhere")
    git(project, "add", "link")
    git(project, "commit", "-qm", "a link")
    run = run_in(project, "a")
    copies = run.file("untracked")
    (copies / name).parent.mkdir(parents=True, exist_ok=True)
    (copies / name).write_text("evil = 1\n")
    digest = (
        "0" * 64
        if name == "dgc/own.py"
        else hashlib.sha256((copies / name).read_bytes()).hexdigest()
    )
    write_json(run.git, {**read_json(run.git), "untracked": {name: digest}})
    with pytest.raises(
        IntegrityError, match=r"is not the file that was recorded|would be written outside"
    ):
        repeat(project, run)
    assert not (project.parent / "elsewhere").exists()
    assert [path.name for path in project.parent.glob("dgcctl-rerun-*")] == []


def test_the_repository_of_the_record_is_found_from_another_one(project, tmp_path, monkeypatch):
    run = run_in(project, "a")
    other = tmp_path / "other"
    other.mkdir()
    git(tmp_path, "init", "-q", str(other))
    monkeypatch.chdir(other)
    assert gitstate.repository_of(read_json(run.git)) == project
    assert again.compare(run, again.repeat(run, project / "runs"), {}).comparison.bitwise


def test_an_unfinished_run_is_not_repeated(project):
    run = run_in(project, "a")
    status = read_status(run)
    status.state = State.STOPPED
    write_status(run, status)
    with pytest.raises(
        UsageError, match=r"the run is stopped, so there is no result to repeat: `dgcctl resume"
    ):
        repeat(project, run)


def test_a_run_without_a_log_is_an_integrity_error(project):
    run = run_in(project, "a")
    other = run_in(project, "b")
    run.events.unlink()
    with pytest.raises(IntegrityError, match="no metric rows"):
        again.compare(run, other, {})


def test_several_ranks_are_repeated_by_as_many(tmp_path):
    run = make_run(tmp_path / "a")
    from dgc.run.events import EventKind, EventWriter
    from dgcctl.core.runs.record import read_record

    run.events.unlink()
    writer = EventWriter(run)
    writer.append(EventKind.START, world_size=2, recipe="x", steps=1, epochs=1)
    writer.close()
    words = again.command(read_record(run), RunDir(tmp_path / "b"), tmp_path, "dgc.train")
    assert "dgc.train.launch" in words
    assert "--nproc-per-node=2" in words
    assert "--no-python" in words


def test_a_commit_is_looked_for_without_touching_the_checkout(project):
    assert gitstate.has_commit(project, "0" * 40) is False
    assert gitstate.has_commit(project.parent, "0" * 40) is None


def test_files_that_are_not_in_the_record_are_said(project, capsys, monkeypatch):
    from dgcctl.cli import rerun as command

    (project / "dgc" / "table.py").write_bytes(b"# " + b"x" * (1 << 20))
    run = run_in(project, "a")
    monkeypatch.chdir(project)
    command.rerun(str(run.path), runs_dir=project / "runs", check=True)
    said = capsys.readouterr()
    assert "1 file left out of the record: dgc/table.py (larger than 1 MiB)" in said.err
    assert "bitwise equal" in said.out


def test_a_record_of_an_older_release_is_read_too(project, capsys, monkeypatch):
    from dgcctl.cli import rerun as command

    run = run_in(project, "a")
    write_json(
        run.git, {**read_json(run.git), "left_out": None, "untracked_left_out": ["weights.npz"]}
    )
    monkeypatch.chdir(project)
    command.rerun(str(run.path), runs_dir=project / "runs", check=True)
    assert "1 file left out of the record: weights.npz" in capsys.readouterr().err


def test_how_far_a_repetition_is_is_shown_as_in_a_training(project, monkeypatch, capsys):
    from dgcctl.cli.main import main

    run = run_in(project, "a")
    monkeypatch.chdir(project)
    monkeypatch.setenv("DGCCTL_VERBOSITY", "0")
    assert main(["rerun", str(run.path), "--allow-change", "--runs-dir", str(run.path.parent)]) == 0
    told = capsys.readouterr()
    again_id = told.out.strip()
    said = told.err.splitlines()
    assert f"run {again_id}" in said
    (shown,) = [line for line in said if "top-1 error" in line]
    assert shown.startswith("epoch 0  ")
    assert said.index(f"run {again_id}") < said.index(shown)


def test_a_repetition_changes_nothing_and_a_run_is_no_recipe(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "20260101T000000Z-demo-0a1b2c")
    monkeypatch.setenv("DGCCTL_RUNS_DIR", str(tmp_path))
    assert main(["rerun", "0a1b2c", "optim.lr=0.2"]) == 2
    said = capsys.readouterr().err
    assert "a repetition changes nothing; `dgcctl train runs/RUN/recipe.yaml KEY=VALUE`" in said
    for words in (["train", "0a1b2c"], ["recipes", "show", run.id]):
        assert main(words) == 2
        assert f"it is a run, whose recipe is {run.recipe}" in capsys.readouterr().err
