"""What the running code needs comes into the record first, is always named, and decides whether it
is restorable.
"""

import sys
import types

import pytest

import dgc
from dgc.run import code_record, git, untracked
from tests.unit import test_checkout as plain
from tests.unit.test_checkout import call, commit, contents, installed, record, restored

repo = plain.repo
no_other_configuration = plain.no_other_configuration


def many(repo, monkeypatch, limit=3):
    """More untracked files than are copied, in a folder that git lists before the package."""
    monkeypatch.setattr(untracked, "COUNT_LIMIT", limit)
    monkeypatch.setattr(untracked, "LISTED_LIMIT", 2)
    (repo / "aaa").mkdir()
    for number in range(5):
        (repo / "aaa" / f"{number}.py").write_text("x = 1\n")


def test_files_of_the_package_come_before_any_others(repo, tmp_path, monkeypatch):
    many(repo, monkeypatch)
    (repo / "pkg" / "token_mixer.py").write_text("x = 2\n")
    facts = record(repo, tmp_path, package=repo / "pkg").facts()
    assert list(facts["untracked"]) == ["pkg/token_mixer.py", "aaa/0.py", "aaa/1.py"]
    assert (facts["restorable"], facts["left_out_count"]) == (True, 3)


def test_files_of_loaded_modules_come_next(repo, tmp_path, monkeypatch):
    (repo / ".gitignore").write_text("zzz.py\n.venv/\n")
    commit(repo, "ignore")
    many(repo, monkeypatch)
    environment = repo / ".venv" / "site-packages"
    environment.mkdir(parents=True)
    for path in (repo / "pkg" / "new.py", repo / "zzz.py", environment / "other.py"):
        path.write_text("x = 2\n")
    for name, path in (
        ("zzz", repo / "zzz.py"),
        ("other", environment / "other.py"),
        ("a", repo / "pkg" / "a.py"),
    ):
        module = types.ModuleType(name)
        module.__file__ = str(path)
        monkeypatch.setitem(sys.modules, f"loaded_{name}", module)
    facts = record(repo, tmp_path, package=repo / "pkg").facts()
    assert list(facts["untracked"]) == ["pkg/new.py", "zzz.py", "aaa/0.py"]
    assert facts["restorable"] is True


def test_a_source_of_the_package_beyond_the_limit_is_named_and_makes_the_record_useless(
    repo, tmp_path, monkeypatch
):
    many(repo, monkeypatch, limit=2)
    for number in range(6):
        (repo / "pkg" / f"n{number}.py").write_text("x = 1\n")
    facts = record(repo, tmp_path, package=repo / "pkg").facts()
    assert {"pkg/n2.py", "pkg/n3.py", "pkg/n4.py", "pkg/n5.py"} <= set(facts["left_out"])
    assert facts["left_out_count"] == 9
    assert facts["restorable"] is False
    wanted = (
        "sources of the package were left out: 4 files (more than 2 files): pkg/n2.py, pkg/n3.py,"
        " pkg/n4.py, ..."
    )
    assert facts["problem"] == wanted


def secret(repo):
    (repo / "pkg" / "my_token.py").write_text("x = 1\n")


def large(repo):
    (repo / "pkg" / "table.py").write_bytes(b"#" * (untracked.FILE_LIMIT + 1))


def nested(repo):
    (repo / "pkg" / "inner").mkdir()
    call(repo, "init", "-q", str(repo / "pkg" / "inner"))
    (repo / "pkg" / "inner" / "x.py").write_text("x = 1\n")


def linked_folder(repo):
    (repo.parent / "elsewhere").mkdir()
    (repo / "pkg" / "extras").symlink_to(repo.parent / "elsewhere")


def changed_secret(repo):
    secret(repo)
    commit(repo, "tracked")
    (repo / "pkg" / "my_token.py").write_text("x = 2\n")


LACKING = {
    secret: "pkg/my_token.py (looks like a secret)",
    large: "pkg/table.py (larger than 1 MiB)",
    nested: "pkg/inner/ (a git repository of its own)",
    linked_folder: "pkg/extras (a symbolic link to a folder)",
    changed_secret: "pkg/my_token.py (looks like a secret)",
}


@pytest.mark.parametrize("make", LACKING)
def test_whatever_keeps_a_source_of_the_package_out_is_the_problem_of_the_record(
    repo, tmp_path, make
):
    make(repo)
    facts = record(repo, tmp_path, package=repo / "pkg").facts()
    assert facts["problem"] == f"sources of the package were left out: {LACKING[make]}"
    assert record(repo, tmp_path, package=repo / "elsewhere").facts()["restorable"] is True


def test_a_link_to_a_source_in_the_package_is_recorded_by_its_content(repo, tmp_path):
    (tmp_path / "shared.py").write_text("shared = 1\n")
    (repo / "pkg" / "ext.py").symlink_to(tmp_path / "shared.py")
    (repo / "pkg" / "tracked.py").symlink_to(tmp_path / "shared.py")
    (repo / "pkg" / "inside.py").symlink_to("a.py")
    call(repo, "add", "pkg/tracked.py", "pkg/inside.py")
    call(repo, "commit", "-qm", "links")
    (repo / "pkg" / ".#lock.py").symlink_to("user@machine:1")
    found = record(repo, tmp_path, package=repo / "pkg")
    assert (found.problem, sorted(found.facts()["untracked"])) == (
        "",
        ["pkg/ext.py", "pkg/tracked.py"],
    )
    assert found.facts()["left_out"] == {"pkg/.#lock.py": "a symbolic link that leads nowhere"}
    copies = contents(tmp_path / "run" / "untracked")
    assert copies == {"pkg/ext.py": b"shared = 1\n", "pkg/tracked.py": b"shared = 1\n"}


def test_a_link_to_a_private_key_is_not_followed(repo, tmp_path):
    (tmp_path / "id_rsa").write_text("x")
    (repo / "pkg" / "ext.py").symlink_to(tmp_path / "id_rsa")
    facts = record(repo, tmp_path, package=repo / "pkg").facts()
    assert facts["untracked"] == {}
    assert facts["left_out"] == {"pkg/ext.py": "looks like a secret"}


def test_a_file_taken_out_of_the_index_and_left_here_is_restored(repo, tmp_path):
    """The proof is made in an index of its own: that a file lies here says nothing against the
    patch.
    """
    (repo / "LICENSE").write_text("free\n")
    commit(repo, "licence")
    call(repo, "rm", "-q", "--cached", "LICENSE", "pkg/a.py")
    found = record(repo, tmp_path)
    assert found.problem == ""
    assert restored(repo, found, tmp_path) == contents(repo)


# --- reasons, grouped -----------------------------------------------------------------------------


def said(**facts):
    return code_record.left_out(facts)


def test_a_reason_that_many_files_share_is_said_once():
    names = {f"aaa/{n}.py": "more than 1,000 files" for n in range(100)}
    assert said(
        left_out=names, left_out_count=101, left_out_reasons={"more than 1,000 files": 101}
    ) == [
        "101 files left out of the record (more than 1,000 files): aaa/0.py, aaa/1.py,"
        " aaa/2.py, ..."
    ]
    reasons = {"more than 1,000 files": 101, "a symbolic link": 1}
    assert said(
        left_out={**names, "x.py": "a symbolic link"}, left_out_count=102, left_out_reasons=reasons
    ) == [
        "102 files left out of the record: 101 files (more than 1,000 files): aaa/0.py, aaa/1.py,"
        " aaa/2.py, ...; x.py (a symbolic link)"
    ]
    assert said(left_out={"a": "b"}) == ["1 file left out of the record: a (b)"]
    assert said(left_out={"a": "b", "c": "d"}) == ["2 files left out of the record: a (b); c (d)"]


def test_a_submodule_is_no_file_and_its_advice_is_to_commit_inside_it():
    assert said(left_out={"sub": "a submodule with changes of its own"}) == [
        "1 submodule left out of the record: sub (a submodule with changes of its own: commit"
        " inside sub)"
    ]
    assert said(left_out={"in/": "a git repository of its own", "a.py": "a symbolic link"}) == [
        "1 repository and 1 file left out of the record: in/ (a git repository of its own); a.py (a"
        " symbolic link)"
    ]


# --- no checkout, and why -------------------------------------------------------------------------


def problem_of(folder, monkeypatch):
    package = installed(folder)
    monkeypatch.setattr(code_record, "_package", lambda: package)
    facts = code_record.own_code_facts()
    assert facts["commit"] is None
    return code_record.sentences(facts)[0]


def test_a_repository_without_a_commit_is_said_with_what_to_do(tmp_path, monkeypatch):
    root = tmp_path / "fresh"
    call(tmp_path, "init", "-q", str(root))
    level, text = problem_of(root, monkeypatch)
    assert level == "warning"
    wanted = f"the git repository {root} has no commit yet: `git add -A`, `git commit`"
    assert text.endswith(wanted)
    call(root, "add", "-A")
    assert code_record.own_code_facts()["problem"] == wanted


def test_a_package_that_git_does_not_track_is_said_with_what_to_do(repo, monkeypatch):
    level, text = problem_of(repo, monkeypatch)
    assert level == "warning"
    assert text.endswith(f"git does not track the package in {repo}: `git add dgc`, `git commit`")


def test_a_git_file_that_leads_nowhere_and_an_empty_git_folder_are_said(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    (one / ".git").write_text(f"gitdir: {tmp_path}/gone\n")
    level, text = problem_of(one, monkeypatch)
    assert level == "warning"
    assert text.endswith(
        f"{one}/.git leads to {tmp_path}/gone, where no git repository is: clone again, or `git"
        " worktree repair` in the repository it came from"
    )
    (two / ".git").mkdir(parents=True)
    assert problem_of(two, monkeypatch)[1].endswith(
        f"{two}/.git is no git repository (it is empty): clone again, or `git init`, `git add -A`,"
        " `git commit`"
    )


def test_an_installed_package_is_nobodys_fault(repo, monkeypatch):
    level, text = problem_of(repo / ".venv" / "lib" / "site-packages", monkeypatch)
    assert level == "info"
    assert "cannot be restored" not in text
    assert text == (
        f"code: dgcctl {dgc.__version__}, as it is installed: `rerun` repeats the run where that is"
        " installed"
    )


def test_a_package_that_lies_elsewhere_without_git_cannot_be_restored(tmp_path, monkeypatch):
    level, text = problem_of(tmp_path / "copied", monkeypatch)
    assert level == "info"
    assert text.startswith(
        "its code cannot be restored from its record: the package lies in no git checkout ("
    )


# --- what git says, with what to do ---------------------------------------------------------------


def test_a_repository_of_another_owner_is_said_with_gits_advice_in_one_line(repo, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setattr(git, "_KEPT", (*git._KEPT, "GIT_TEST_"))
    facts = code_record.code_facts(repo)
    assert "dubious ownership" in facts["problem"]
    assert facts["problem"].endswith(f": `git config --global --add safe.directory {repo}`")
    assert "\n" not in facts["problem"]


def test_a_damaged_index_is_said_with_what_to_do(repo):
    (repo / ".git" / "index").write_bytes(b"damaged" * 9)
    problem = code_record.code_facts(repo)["problem"]
    assert problem.endswith(
        ": the index is damaged: remove .git/index, then `git reset` (files stay as they are)"
    )
