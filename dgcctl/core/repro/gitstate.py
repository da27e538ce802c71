"""Reading git for the record: is a commit here; a clean worktree of recorded code. The checkout is
never touched.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dgc.errors import DgcError, IntegrityError, UsageError
from dgc.run import git as calls
from dgc.run.files import sha256_of
from dgc.run.paths import RunDir
from dgcctl.core.repro import leftovers


def git(folder: Path, *arguments: str, config: Mapping[str, str] | None = None) -> str:
    """Standard output of a git command run in `folder`. Raises UsageError with git's own reason."""
    try:
        return calls.run(folder, *arguments, config=config).decode(errors="replace")
    except calls.GitError as error:
        raise UsageError(f"git {arguments[0]} failed in {folder}: {error}") from error


def toplevel(folder: Path) -> Path | None:
    """Root of the checkout that holds `folder` (None: there is none, or git may not look)."""
    try:
        return calls.toplevel(folder)
    except calls.GitError:
        return None


def trouble(folder: Path) -> str:
    """Why git cannot answer about the checkout that holds `folder`;
    "" where it can, or where there is none.
    """
    try:
        calls.toplevel(folder)
    except calls.GitError as error:
        return str(error)
    return ""


def has_commit(folder: Path, commit: str) -> bool | None:
    """Whether the repository around `folder` holds a commit; None where there is no repository."""
    # no repository and a repository without the commit are two different answers
    if toplevel(folder) is None:
        return None
    try:
        git(folder, "cat-file", "-e", f"{commit}^{{commit}}")
    except UsageError:
        return False
    return True


def repository_of(record: Mapping[str, Any]) -> Path | None:
    """The repository with a record's commit:
    where it was recorded, that of the running code, or around here.
    """
    commit = record.get("commit")
    recorded = record.get("root")
    # where it was recorded first: the same checkout may
    # have another branch by now, but the commit is there
    places = [Path(str(recorded))] if recorded else []
    places += [Path(__file__).resolve().parent, Path.cwd()]
    return next((place for place in places if commit and has_commit(place, str(commit))), None)


def recorded_files(record: Mapping[str, Any]) -> dict[str, str]:
    """File of the run directory -> SHA-256, as git.json names them:
    the patch and the untracked sources.
    """
    files: dict[str, str] = {}
    if record.get("patch_sha256"):
        # what is restored is held against these, so that a record that was edited is found out
        files["git.patch"] = str(record["patch_sha256"])
    untracked = record.get("untracked") or {}
    if isinstance(untracked, Mapping):
        files |= {f"untracked/{name}": str(digest) for name, digest in untracked.items()}
    return files


@contextmanager
def recorded_code(run: RunDir, record: Mapping[str, Any], repository: Path) -> Iterator[Path]:
    """A clean worktree with the code of a run:
    its commit, its patch, its untracked sources; removed afterwards.

    Raises UsageError where the run recorded no commit or the repository lacks it, IntegrityError
    where the patch does not apply.
    """
    commit = record.get("commit")
    if not commit:
        raise UsageError(
            f"{run.id}: no git commit was recorded, so its code cannot be restored: --current-code"
            " uses this one"
        )
    if not has_commit(repository, str(commit)):
        raise UsageError(
            f"{run.id}: commit {commit} is not in {repository}: fetch it, or use --current-code"
        )
    parent = Path(tempfile.mkdtemp(prefix=leftovers.PREFIX))
    tree = parent / "code"
    try:
        # Before the worktree: a rerun that is killed leaves a folder that a later one knows as
        # nobody's.
        leftovers.own(parent)
        # --force: an earlier worktree that lost its folder
        # must not be in the way; --detach: no branch moves
        words = ("worktree", "add", "--detach", "--force", str(tree), str(commit))
        git(repository, *words, config=_filters(record, repository))
        restore_changes(run, tree, record)
        yield tree
    finally:
        # by git first, which forgets it then; the folder goes either way
        _remove_worktree(repository, tree)
        shutil.rmtree(parent, ignore_errors=True)


def restore_changes(run: RunDir, tree: Path, record: Mapping[str, Any]) -> None:
    """Apply the recorded patch and copy the untracked sources into a worktree.

    Raises IntegrityError for a patch that does not apply, and for a file that is not what git.json
    says or would be written elsewhere: a record is data, and what it restores is run.
    """
    patch = run.file("git.patch")
    if patch.is_file() and patch.stat().st_size:
        try:
            # whitespace is part of what ran
            words = ("apply", "--binary", "--whitespace=nowarn", str(patch.resolve()))
            git(tree, *words, config=_filters(record, tree))
        except UsageError as error:
            raise IntegrityError(
                f"{patch}: does not apply to the recorded commit ({error})"
            ) from error
    for name, digest in recorded_files(record).items():
        source = run.file(name)
        # by the digest that git.json has: the file beside it may have been changed
        found = sha256_of(source) if source.is_file() else "absent"
        if found != digest:
            raise IntegrityError(
                f"{source}: is not the file that was recorded (SHA-256 {digest[:12]}, is"
                f" {found[:12]})"
            )
        if name.startswith("untracked/"):
            _copy_into(source, run.file("untracked"), tree)


def _filters(record: Mapping[str, Any], repository: Path) -> dict[str, str]:
    """Settings that keep this machine's filters (git-lfs, ...) out of what is restored. Older
    records were proven with those of their machine, and need them.
    """
    return calls.no_filters(repository) if record.get("filters") is False else {}


def _copy_into(source: Path, folder: Path, tree: Path) -> None:
    target = tree / source.relative_to(folder)
    # Resolved, for a folder of the commit may be a link that leads out of the tree.
    landing = target.parent.resolve()
    inside = source.resolve().is_relative_to(folder.resolve()) and landing.is_relative_to(
        tree.resolve()
    )
    if ".." in source.parts or not inside or ".git" in target.relative_to(tree).parts:
        raise IntegrityError(f"{source}: would be written outside the restored code")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():  # of the commit; the record has the content that it led to
        target.unlink()
    shutil.copyfile(source, target)


def _remove_worktree(repository: Path, tree: Path) -> None:
    try:
        git(repository, "worktree", "remove", "--force", str(tree))
    # git may refuse, or be gone; the folder is ours to remove all the same
    except DgcError:
        shutil.rmtree(tree, ignore_errors=True)
