"""The record of a checkout: whatever the user's git is set to, it gives the files back, and says
what it does not hold.

Every case is a real repository; hostile settings come through the user's global configuration.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dgc import settings
from dgc.errors import UsageError
from dgc.run import checkout, code_record, git, untracked
from dgc.run.files import read_json, write_json
from dgc.run.git import GitError
from dgc.run.paths import RunDir

IDENTITY = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
SOURCE = "".join(f"line_{n} = {n}\n" for n in range(40))


def call(folder, *words, data=None):
    """git as the user calls it, with the user's configuration."""
    done = subprocess.run(
        ["git", "-C", str(folder), *IDENTITY, *words], check=True, capture_output=True, input=data
    )
    return done.stdout


@pytest.fixture(autouse=True)
def no_other_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (tmp_path / "gitconfig").write_text("")


@pytest.fixture
def repo(tmp_path):
    """A checkout with two sources and a binary file, committed."""
    root = tmp_path / "repo"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text(SOURCE)
    (root / "pkg" / "b.py").write_text(SOURCE.replace("line", "row"))
    (root / "pkg" / "blob.bin").write_bytes(bytes(range(256)) * 8)
    call(root.parent, "init", "-q", str(root))
    commit(root, "first")
    return root


def commit(root, message):
    call(root, "add", "-A")
    call(root, "commit", "-qm", message)


def change(root):
    """An edit, a renamed file, a binary change, a name that is not ASCII, and a staged new file."""
    path = root / "pkg" / "a.py"
    path.write_bytes(path.read_bytes().replace(b"line_7 = 7", b"line_7 = 700"))
    (root / "pkg" / "b.py").rename(root / "pkg" / 'größe und "b".py')
    (root / "pkg" / "blob.bin").write_bytes(bytes(range(255, -1, -1)) * 8)
    (root / "pkg" / "new.py").write_text("new = 1\n")
    call(root, "add", "pkg/new.py")


def record(root, tmp_path, **options):
    target = tmp_path / "run" / "untracked"
    found = checkout.read(root, target, **options)
    if found.patch:
        target.parent.mkdir(exist_ok=True)
        (target.parent / "git.patch").write_bytes(found.patch)
    return found


def restored(root, found, tmp_path):
    """File -> bytes of a clean worktree that the record was put into, by a git without any
    configuration.
    """
    tree = tmp_path / "restored"
    clean = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    words = ["git", "-C", str(root), "-c", "core.autocrlf=false"]
    subprocess.run(
        [*words, "worktree", "add", "-q", "--detach", str(tree), found.commit],
        check=True,
        env=clean,
    )
    if found.patch:
        subprocess.run(
            ["git", "-C", str(tree), "apply", "--binary", "-"],
            input=found.patch,
            check=True,
            env=clean,
        )
    if (tmp_path / "run" / "untracked").is_dir():
        shutil.copytree(tmp_path / "run" / "untracked", tree, dirs_exist_ok=True)
    return contents(tree)


def contents(root):
    files = (path for path in Path(root).rglob("*") if path.is_file() and not path.is_symlink())
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in files
        if ".git" not in p.relative_to(root).parts
    }


HOSTILE = {
    "external diff": "[diff]\n\texternal = /bin/echo lost\n",
    "colour": "[color]\n\tui = always\n\tdiff = always\n",
    "no prefix": "[diff]\n\tnoprefix = true\n",
    "mnemonic prefix": "[diff]\n\tmnemonicPrefix = true\n",
    "renames": "[diff]\n\trenames = copies\n",
    "no context": "[diff]\n\tcontext = 0\n\tinterHunkContext = 99\n\talgorithm = patience\n",
    "quoted names": "[core]\n\tquotePath = true\n\tprecomposeUnicode = true\n",
    "line ends, true": "[core]\n\tautocrlf = true\n\tsafecrlf = true\n",
    "line ends, input": "[core]\n\tautocrlf = input\n\tsafecrlf = true\n",
    "relative, ordered": "[diff]\n\trelative = true\n\torderFile = /nowhere/order\n",
    "white space": (
        "[diff]\n\twsErrorHighlight = all\n\tsuppressBlankEmpty = true\n[apply]\n\twhitespace ="
        " error\n"
    ),
    "submodules and pager": (
        "[diff]\n\tsubmodule = log\n\tignoreSubmodules = none\n[core]\n\tpager = /bin/false\n"
    ),
    "word differences": (
        "[diff]\n\twordRegex = .\n\tcolorMoved = zebra\n\tcolorMovedWS = ignore-all-space\n"
    ),
    "monitor and hooks": (
        "[core]\n\tfsmonitor = /bin/false\n\thooksPath = /nowhere\n\tuntrackedCache = true\n"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_setting_of_git_changes_the_record(repo, tmp_path, name):
    change(repo)
    plain = checkout.read(repo)
    (tmp_path / "gitconfig").write_text(HOSTILE[name])
    found = record(repo, tmp_path)
    assert found.patch == plain.patch
    assert found.facts() == plain.facts()
    assert found.problem == ""
    assert restored(repo, found, tmp_path) == contents(repo)


ATTRIBUTES = {
    "nothing is text": "* -diff\n",
    "a driver with a program of its own": "* diff=odd\n",
    "a program that shows text": "* diff=shown\n",
    "line ends": "*.py text eol=crlf\n",
    "a filter that drops lines": "*.py filter=strip\n",
    "a filter that cannot be run": "*.bin filter=absent\n",
}
DRIVERS = (
    '[diff "odd"]\n\tcommand = /bin/echo lost\n[diff "shown"]\n\ttextconv = /bin/echo text\n'
    '[filter "strip"]\n\tclean = sed /line_7/d\n\tsmudge = cat\n'
    '[filter "absent"]\n\tclean = /nowhere/clean\n\tsmudge = /nowhere/smudge\n'
)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_and_filters_do_not_change_what_is_restored(repo, tmp_path, name):
    (repo / ".gitattributes").write_text(ATTRIBUTES[name])
    commit(repo, "attributes")
    (tmp_path / "gitconfig").write_text(DRIVERS)
    change(repo)
    found = record(repo, tmp_path)
    assert found.problem == ""
    whole = contents(repo)
    again = restored(repo, found, tmp_path)
    assert {name: again.get(name) for name in ("pkg/a.py", "pkg/new.py", "pkg/blob.bin")} == {
        name: whole[name] for name in ("pkg/a.py", "pkg/new.py", "pkg/blob.bin")
    }


def test_what_a_filter_keeps_from_git_is_recorded_as_it_lies_here(repo, tmp_path):
    """An edit is in the patch, though the filter drops it; the other files are kept whole where
    they are not what git stores.
    """
    (repo / ".gitattributes").write_text("*.py filter=strip\n")
    (tmp_path / "gitconfig").write_text(DRIVERS.replace("/line_7/", "/more/"))
    (repo / "pkg" / "a.py").write_text(SOURCE + "# more\n")
    os.utime(repo / "pkg" / "a.py", (1e9, 1e9))  # git looks into what is as new as its index
    commit(repo, "attributes")
    (repo / "pkg" / "b.py").write_text(SOURCE + "# more of it\n")
    found = record(repo, tmp_path)
    assert (found.whole, found.problem) == (["pkg/a.py"], "")
    assert (tmp_path / "run" / "untracked" / "pkg" / "a.py").read_text() == SOURCE + "# more\n"
    assert b"+# more of it\n" in found.patch
    assert b"pkg/a.py" not in found.patch


def test_no_filter_runs_while_a_record_is_made(repo, tmp_path):
    """git-lfs would download, and write into the repository."""
    (repo / ".gitattributes").write_text("*.py filter=tell\n")
    commit(repo, "attributes")
    tell = f"sh -c 'touch {tmp_path}/ran; cat'"
    drivers = f'[filter "tell"]\n\tclean = "{tell}"\n\tsmudge = "{tell}"\n'
    change(repo)
    (tmp_path / "gitconfig").write_text(drivers)
    found = record(repo, tmp_path)
    assert not (tmp_path / "ran").exists()
    assert restored(repo, found, tmp_path) == contents(repo)
    call(repo, "add", "-A")
    assert (tmp_path / "ran").exists()  # git itself asks it


@pytest.mark.parametrize(
    "variable", ["GIT_EXTERNAL_DIFF", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_DIFF_OPTS"]
)
def test_no_variable_of_git_changes_the_record(repo, tmp_path, monkeypatch, variable):
    change(repo)
    plain = checkout.read(repo)
    monkeypatch.setenv(
        variable,
        {"GIT_DIFF_OPTS": "--unified=0", "GIT_EXTERNAL_DIFF": "/bin/echo"}.get(
            variable, "/nowhere"
        ),
    )
    assert checkout.read(repo).facts() == plain.facts()


def test_a_file_that_git_was_told_to_overlook_is_recorded_as_it_is(repo, tmp_path):
    call(repo, "update-index", "--assume-unchanged", "pkg/a.py")
    call(repo, "update-index", "--skip-worktree", "pkg/b.py")
    for name in ("a.py", "b.py"):
        (repo / "pkg" / name).write_text("other = 1\n")
    index = (repo / ".git" / "index").read_bytes()
    found = record(repo, tmp_path)
    assert sorted(found.hidden) == ["pkg/a.py", "pkg/b.py"]
    assert restored(repo, found, tmp_path) == contents(repo)
    assert (repo / ".git" / "index").read_bytes() == index


def test_a_sparse_checkout_is_no_deletion(repo, tmp_path):
    (repo / "other").mkdir()
    (repo / "other" / "c.py").write_text("c = 1\n")
    commit(repo, "more")
    call(repo, "sparse-checkout", "set", "pkg")
    assert not (repo / "other").exists()
    found = record(repo, tmp_path)
    assert (found.patch, found.sparse, found.problem) == (b"", 1, "")
    assert ("info", "sparse checkout: 1 file of the commit are not here") in code_record.sentences(
        found.facts()
    )


def test_what_cannot_be_copied_is_named_with_its_reason(repo, tmp_path):
    (repo / "large.py").write_bytes(b"#" * (untracked.FILE_LIMIT + 1))
    (repo / "link.py").symlink_to("pkg/a.py")
    (repo / "inner").mkdir()
    call(repo.parent, "init", "-q", str(repo / "inner"))
    (repo / "inner" / "x.py").write_text("x = 1\n")
    (repo / "odd\nname.py").write_text("x = 1\n")
    (repo / "own.py").write_text("x = 1\n")
    found = record(repo, tmp_path)
    assert found.facts()["left_out"] == {
        "inner/": "a git repository of its own",
        "large.py": "larger than 1 MiB",
        "link.py": "a symbolic link",
        "odd\\nname.py": "its name holds bytes that are no UTF-8, or control characters",
    }
    assert list(found.facts()["untracked"]) == ["own.py"]
    said = code_record.sentences(found.facts())
    assert ("info", "copied into the record: 1 file: own.py") in said
    assert said[0][0] == "warning"
    assert said[0][1].startswith("1 repository and 3 files left out of the record: ")


def test_a_name_that_is_no_utf8_is_left_out_and_can_be_written(repo, tmp_path):
    Path(os.fsdecode(os.fsencode(repo) + b"/caf\xe9.py")).write_text("x = 1\n")
    facts = record(repo, tmp_path).facts()
    run = RunDir(tmp_path / "run2")
    run.path.mkdir()
    write_json(run.git, facts)
    assert list(read_json(run.git)["left_out"]) == ["caf\\xe9.py"]


def test_a_submodule_with_changes_of_its_own_is_named(repo, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    call(tmp_path, "init", "-q", str(other))
    (other / "x.py").write_text("x = 1\n")
    commit(other, "first")
    call(repo, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "sub")
    commit(repo, "submodule")
    assert record(repo, tmp_path).facts()["left_out"] == {}
    (repo / "sub" / "x.py").write_text("x = 2\n")
    (repo / "pkg" / "a.py").write_text("a = 1\n")
    found = record(repo, tmp_path)
    assert found.facts()["left_out"] == {"sub": "a submodule with changes of its own"}
    assert b"pkg/a.py" in found.patch
    assert b"sub" not in found.patch


SECRETS = [
    ".env",
    "key.pem",
    "id_rsa",
    "credentials.json",
    "api_key.yaml",
    ".aws/config.ini",
    "my_secret.py",
    "token.json",
]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_left_out_unless_it_is_asked_for(repo, tmp_path, name):
    (repo / name).parent.mkdir(exist_ok=True)
    (repo / name).write_text("PASSWORD=1\n")
    found = record(repo, tmp_path)
    assert found.facts()["left_out"] == {name: "looks like a secret"}
    assert not (tmp_path / "run").exists()
    asked = record(repo, tmp_path, secrets=True)
    assert asked.facts()["left_out"] == {}


def test_a_private_key_in_a_source_and_a_changed_secret_that_is_tracked_are_left_out(
    repo, tmp_path
):
    (repo / ".env").write_text("A=1\n")
    commit(repo, "a secret that is tracked")
    (repo / ".env").write_text("A=hidden\n")
    (repo / "deploy.sh").write_text("KEY='-----BEGIN RSA PRIVATE KEY-----'\n")
    (repo / "tokenizer.py").write_text("x = 1\n")
    found = record(repo, tmp_path)
    assert found.patch == b""
    assert found.facts()["left_out"] == {
        ".env": "looks like a secret",
        "deploy.sh": "holds a private key",
    }
    assert list(found.facts()["untracked"]) == ["tokenizer.py"]


def test_three_thousand_images_are_counted_and_not_copied(repo, tmp_path, monkeypatch):
    read = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or whole(path))
    (repo / "images").mkdir()
    for number in range(3000):
        (repo / "images" / f"{number}.png").write_bytes(b"12345")
    (repo / "own.py").write_text("x = 1\n")
    found = record(repo, tmp_path)
    assert [path.name for path in read] == ["own.py"]
    assert found.facts()["not_code"] == {"files": {".png": 3000}, "bytes": 15000}
    assert list(contents(tmp_path / "run")) == ["untracked/own.py"]
    wanted = (
        "not copied, neither code nor a recipe: 3,000 files that git does not track (3,000 .png)"
    )
    assert ("info", wanted) in code_record.sentences(found.facts())


def test_copies_are_bounded_in_number_bytes_and_time(repo, tmp_path, monkeypatch):
    for number in range(5):
        (repo / f"own{number}.py").write_text("x = 1\n")
    monkeypatch.setattr(untracked, "COUNT_LIMIT", 3)
    facts = record(repo, tmp_path).facts()
    assert (len(facts["untracked"]), facts["left_out_count"]) == (3, 2)
    assert facts["left_out"]["own4.py"] == "more than 3 files"
    monkeypatch.setattr(untracked, "COUNT_LIMIT", 9)
    monkeypatch.setattr(untracked, "TOTAL_LIMIT", 13)
    assert len(record(repo, tmp_path).facts()["untracked"]) == 2
    monkeypatch.setattr(untracked, "SECONDS_LIMIT", -1.0)
    assert (
        record(repo, tmp_path).facts()["left_out"]["own0.py"].startswith("copying took longer than")
    )
    monkeypatch.setattr(untracked, "LISTED_LIMIT", 2)
    assert len(record(repo, tmp_path).facts()["left_out"]) == 2


def test_a_large_change_is_left_out_of_the_patch(repo, tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "CHANGED_FILE_LIMIT", 2000)
    (repo / "pkg" / "blob.bin").write_bytes(b"1" * 3000)
    (repo / "pkg" / "a.py").write_text("a = 1\n")
    found = record(repo, tmp_path)
    assert list(found.facts()["left_out"]) == ["pkg/blob.bin"]
    assert b"blob.bin" not in found.patch
    assert b"pkg/a.py" in found.patch


def test_runs_and_sweeps_are_results_and_not_code(repo, tmp_path):
    for folder, names in (
        ("runs/r", ["recipe.yaml", "argv.json"]),
        ("runs/sweeps/s", ["plan.json", "base.yaml"]),
    ):
        (repo / folder / "deep").mkdir(parents=True)
        for name in names:
            (repo / folder / name).write_text("{}")
        (repo / folder / "deep" / "x.py").write_text("x = 1\n")
    assert record(repo, tmp_path).facts()["untracked"] == {}


def test_ignored_code_inside_the_package_is_recorded(repo, tmp_path):
    (repo / ".gitignore").write_text("local_*\n")
    commit(repo, "ignore")
    (repo / "pkg" / "local_ops.py").write_text("x = 1\n")
    (repo / "local_notes.py").write_text("x = 1\n")
    found = record(repo, tmp_path, package=repo / "pkg")
    assert list(found.facts()["untracked"]) == ["pkg/local_ops.py"]


# --- proof and trouble ----------------------------------------------------------------------------


def test_a_patch_that_does_not_apply_is_said_when_the_record_is_made(repo, tmp_path, monkeypatch):
    change(repo)
    monkeypatch.setattr(checkout._Index, "patch", lambda index, without: b"lost pkg/a.py\n")
    facts = record(repo, tmp_path).facts()
    assert facts["restorable"] is False
    assert facts["problem"].startswith("git.patch does not apply (error: ")
    assert code_record.sentences(facts)[0] == (
        "warning",
        f"its code cannot be restored from its record: {facts['problem']}",
    )


def test_a_failure_of_git_is_no_clean_checkout(repo, tmp_path):
    (repo / ".git" / "HEAD").write_text("ref: refs/heads/none\n")
    facts = code_record.code_facts(repo)
    assert facts["commit"] is None
    assert facts["restorable"] is False
    (repo / ".git" / "index").write_bytes(b"damaged")
    with pytest.raises(GitError):
        checkout.read(repo)


def test_without_git_the_reason_is_kept(repo, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert code_record.code_facts(repo)["problem"] == "git is not installed"


def test_a_merge_that_is_under_way_is_restored_as_it_lies_here(repo, tmp_path):
    call(repo, "checkout", "-q", "-b", "other")
    (repo / "pkg" / "a.py").write_text(SOURCE.replace("line_7 = 7", "line_7 = 8"))
    commit(repo, "other")
    call(repo, "checkout", "-q", "-")
    (repo / "pkg" / "a.py").write_text(SOURCE.replace("line_7 = 7", "line_7 = 9"))
    commit(repo, "ours")
    subprocess.run(
        ["git", "-C", str(repo), *IDENTITY, "merge", "other"], capture_output=True, check=False
    )
    assert "<<<<<<<" in (repo / "pkg" / "a.py").read_text()
    found = record(repo, tmp_path)
    assert found.problem == ""
    assert restored(repo, found, tmp_path) == contents(repo)


# --- whose checkout -------------------------------------------------------------------------------


def installed(folder):
    """A package that lies in `folder`, as a wheel would put it there."""
    (folder / "dgc").mkdir(parents=True)
    (folder / "dgc" / "__init__.py").write_text("")
    return folder / "dgc"


def test_a_package_in_no_checkout_takes_no_other_repository_for_its_own(
    repo, tmp_path, monkeypatch
):
    package = installed(tmp_path / "site-packages")
    monkeypatch.setattr(code_record, "_package", lambda: package)
    (repo / "secret.env").write_text("A=1\n")
    (repo / "own.py").write_text("x = 1\n")
    monkeypatch.chdir(repo)
    run = RunDir(tmp_path / "run")
    facts = code_record.own_code_facts(run)
    assert facts["commit"] is None
    assert "lies in no git checkout" in facts["problem"]
    assert "untracked" not in facts
    assert not run.path.exists()


def test_an_environment_inside_a_repository_is_no_part_of_it(repo, monkeypatch):
    package = installed(repo / ".venv" / "lib" / "site-packages")
    monkeypatch.setattr(code_record, "_package", lambda: package)
    assert git.toplevel(package) == repo
    assert code_record.own_checkout() is None


def test_a_package_that_the_repository_tracks_is_its_own(repo, monkeypatch):
    package = installed(repo)
    commit(repo, "package")
    monkeypatch.setattr(code_record, "_package", lambda: package)
    assert code_record.own_checkout() == repo
    assert (
        code_record.own_code_facts()["commit"] == call(repo, "rev-parse", "HEAD").decode().strip()
    )


# --- settings -------------------------------------------------------------------------------------


def test_whether_secrets_are_asked_for_is_one_setting(monkeypatch):
    monkeypatch.setenv("DGCCTL_RECORD_SECRETS", "yes")
    assert settings.record_secrets() is True
    monkeypatch.setenv("DGCCTL_RECORD_SECRETS", "perhaps")
    with pytest.raises(
        UsageError, match="DGCCTL_RECORD_SECRETS='perhaps': should be true or false"
    ):
        settings.record_secrets()
