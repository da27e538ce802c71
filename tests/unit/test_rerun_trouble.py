"""rerun: code that cannot be imported, what a killed one leaves behind, and which code it says it
runs.
"""

import subprocess
import sys

import pytest

from dgc.errors import DgcError, error_of
from dgc.run.files import read_json, write_json
from dgc.run.process import boot_id
from dgc.run.status import State, Status, write_status
from dgcctl.core import diagnosis
from dgcctl.core.launch import outcome
from dgcctl.core.repro import circumstances, gitstate, leftovers
from dgcctl.core.repro import repetition as again
from tests.unit import test_rerun as plain
from tests.unit.run_factory import make_run
from tests.unit.test_rerun import git, run_in

project = plain.project


def agreeing(_):
    pass


def repeat(project, run, said=None, **options):
    say = said.append if said is not None else agreeing
    return again.repeat(
        run, project / "runs", repository=project, agree=agreeing, say=say, **options
    )


# --- a repetition that was refused before its first step -------------------------------------------


@pytest.mark.parametrize(
    ("code", "built", "left"),
    [(2, True, 1), (3, True, 1), (4, False, 1), (7, False, 1), (4, True, 2), (1, False, 2)],
)
def test_a_refusal_before_the_network_is_built_leaves_no_folder(
    project, monkeypatch, code, built, left
):
    """What the program itself did not understand, and what began, stays to be looked at."""
    run = run_in(project, "a")

    def refuse(repeated, *_):
        if built:
            write_json(repeated.model, {})
        write_status(repeated, Status(state=State.FAILED, exit_code=code))
        raise error_of(code, "refused")

    monkeypatch.setattr(again, "run_to_end", refuse)
    with pytest.raises(DgcError, match="refused"):
        repeat(project, run)
    assert len(list((project / "runs").iterdir())) == left


# --- code that cannot be imported -----------------------------------------------------------------


def test_restored_code_that_cannot_be_imported_is_said_with_what_was_left_out(project):
    run = run_in(project, "a")
    (project / "dgc" / "kick.py").write_text("import dgc.ext\n")
    git(project, "commit", "-qam", "needs a file that is not committed")
    commit = subprocess.check_output(["git", "-C", project, "rev-parse", "HEAD"], text=True).strip()
    (project / "dgc" / "train" / "main.py").write_text("import dgc.kick\n")
    git(project, "add", "dgc/train/main.py")
    git(project, "commit", "-qm", "an entry")
    commit = subprocess.check_output(["git", "-C", project, "rev-parse", "HEAD"], text=True).strip()
    facts = {**read_json(run.git), "commit": commit, "left_out": {"dgc/ext.py": "a symbolic link"}}
    write_json(run.git, facts)
    wanted = (
        f"{run.id}: the restored code cannot be imported: dgc/kick.py:1: ModuleNotFoundError: No"
        " module named 'dgc.ext'; dgc/ext.py was left out of the record (a symbolic link)"
    )
    with pytest.raises(DgcError) as caught:
        repeat(project, run)
    assert str(caught.value) == wanted
    assert caught.value.exit_code == 1
    write_json(run.git, {**facts, "left_out": {}})
    with pytest.raises(DgcError, match=r"No module named 'dgc.ext'$"):
        repeat(project, run)
    assert len(list((project / "runs").glob("2*"))) == 1


def test_the_current_code_with_a_fault_is_named_with_file_and_line(project, monkeypatch):
    run = run_in(project, "a")
    (project / "dgc" / "kick.py").write_text("KICK = 0\n\n\ndef broken(:\n")
    (project / "dgc" / "train" / "main.py").write_text("import dgc.kick\n")
    monkeypatch.setattr(again, "_own_code", lambda: project)
    with pytest.raises(DgcError) as caught:
        repeat(project, run, current_code=True)
    assert str(caught.value).startswith(
        f"{run.id}: the current code ({project}) cannot be imported: dgc/kick.py:4: SyntaxError: "
    )
    assert str(caught.value).endswith(
        ": mend it, or run the code of the record without --current-code"
    )


def test_a_fault_that_shows_while_the_current_code_trains_says_which_code_it_was(
    project, monkeypatch
):
    run = run_in(project, "a")
    source = project / "dgc" / "kick.py"
    source.write_text("raise ValueError('no good')\n")
    monkeypatch.setattr(again, "_own_code", lambda: project)
    with pytest.raises(DgcError) as caught:
        repeat(project, run, current_code=True)
    assert str(caught.value).startswith(f"the current code was run, not that of {run.id}: ")
    assert f"{source}:1: ValueError: no good" in str(caught.value)


def test_a_traceback_in_the_log_is_told_by_its_last_file_and_line(tmp_path):
    run = make_run(tmp_path / "r")
    run.status.unlink()
    run.log.write_text(
        'x start: python\nTraceback (most recent call last):\n  File "/a/b.py", line 3, in f\n   '
        ' g()\n  File "/a/c.py", line 7, in g\n    1/0\nZeroDivisionError: division by zero\n'
    )
    assert "(/a/c.py:7: ZeroDivisionError: division by zero)" in str(outcome.failure(run, 1))


def test_no_reason_is_none(tmp_path):
    run = make_run(tmp_path / "run")
    write_json(run.env, {"device": "cpu", "kernels": "avx512"})
    facts = again.read_record(run)
    for found in (
        {},
        {"native": {"available": False, "why_not": None}},
        {"native": {"available": True}},
    ):
        line, *_ = circumstances.changes(facts, found, "")
        assert "None" not in line, line


# --- which code -----------------------------------------------------------------------------------


def test_one_line_says_which_code_runs(project, monkeypatch):
    said = []
    (project / "dgc" / "kick.py").write_text("from dgc.own import KICK\n")
    (project / "dgc" / "own.py").write_text("KICK = 2\n")
    run = run_in(project, "a")
    repeat(project, run, said)
    commit = read_json(run.git)["commit"]
    assert [line for line in said if line.startswith("code: ")] == [
        f"code: commit {commit[:10]} + patch + 1 file"
    ]
    monkeypatch.setattr(again, "_own_code", lambda: project)
    said.clear()
    repeat(project, run, said, current_code=True)
    assert [line for line in said if line.startswith("code: ")] == [
        f"code: the one that is here, in {project} (--current-code)"
    ]


# --- a rerun that was killed ----------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgcctl.core.repro import gitstate
run = RunDir(Path(sys.argv[1]))
with gitstate.recorded_code(run, read_json(run.git), Path(sys.argv[2])) as tree:
    print(tree, flush=True)
    os.kill(os.getpid(), 9)
"""


def worktrees(project):
    return subprocess.check_output(
        ["git", "-C", project, "worktree", "list"], text=True
    ).splitlines()[1:]


def killed(project, run):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, run.path, project],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    return done.stdout.strip()


def test_the_worktree_of_a_killed_rerun_is_removed_by_the_next(project):
    run = run_in(project, "a")
    tree = killed(project, run)
    assert len(worktrees(project)) == 1
    said = []
    repeat(project, run, said)
    assert worktrees(project) == []
    assert f"removed {tree}, which a killed rerun left behind" in said
    assert not again.Path(tree).parent.exists()


def test_a_worktree_is_left_alone_unless_its_rerun_is_known_to_be_dead(project, tmp_path):
    run = run_in(project, "a")
    mine, older = tmp_path / "mine" / "code", tmp_path / f"{leftovers.PREFIX}x" / "code"
    for tree in (mine, older):
        git(project, "worktree", "add", "-q", "--detach", str(tree))
    with gitstate.recorded_code(run, read_json(run.git), project) as tree:
        assert leftovers.remove(project) == []
        assert len(worktrees(project)) == 3
        owner = tree.parent / leftovers.OWNER
        write_json(owner, {**read_json(owner), "boot": f"not {boot_id()}"})
        assert leftovers.remove(project) == [tree]
    assert older.is_dir()


def test_doctor_names_what_a_killed_rerun_left_behind(project, monkeypatch):
    tree = killed(project, run_in(project, "a"))
    monkeypatch.chdir(project)
    (found,) = diagnosis.left_behind()
    assert (found.name, found.value) == ("killed reruns", f"removed {tree}")
    assert list(diagnosis.left_behind()) == []
