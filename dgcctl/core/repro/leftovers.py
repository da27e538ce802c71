"""Worktrees of reruns that were killed: found in a repository by their name, removed where their
process is gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dgc.errors import DgcError
from dgc.run import git
from dgc.run.files import read_json, write_json
from dgc.run.process import boot_id, is_process, process_start

PREFIX = "dgcctl-rerun-"
OWNER = "owner.json"


def own(folder: Path) -> None:
    """Write down which process a folder belongs to, before a worktree is made in it."""
    pid = os.getpid()
    token = {"pid": pid, "start_token": process_start(pid), "boot": boot_id()}
    write_json(folder / OWNER, token)


def remove(repository: Path | None) -> list[Path]:
    """Remove the worktrees of dead reruns from a repository;
    which they were. What git refuses stays.
    """
    if repository is None:
        return []
    try:
        found = list(_dead(repository))
    except git.GitError:
        return []
    return [tree for tree in found if _removed(repository, tree)]


def _dead(repository: Path) -> Iterator[Path]:
    for line in git.run(repository, "worktree", "list", "--porcelain").splitlines():
        # the first line of each entry is its folder; other lines are passed over
        tree = Path(os.fsdecode(line.removeprefix(b"worktree ")))
        ours = (
            line.startswith(b"worktree ")
            and tree.name == "code"
            and tree.parent.name.startswith(PREFIX)
        )
        if ours and not _may_live(tree.parent):
            yield tree


def _may_live(folder: Path) -> bool:
    """A folder without an owner's record (an older release made it)
    may still be used; one that is gone is not.
    """
    try:
        owner = read_json(folder / OWNER)
        # by start time and boot, too: a pid is given again
        return is_process(int(owner["pid"]), float(owner["start_token"]), str(owner["boot"]))
    except (OSError, DgcError, KeyError, TypeError, ValueError):
        return folder.exists()


def _removed(repository: Path, tree: Path) -> bool:
    try:
        git.run(repository, "worktree", "remove", "--force", str(tree))
    except git.GitError:
        return False
    # its parent is ours as well: mkdtemp made it for this one worktree
    shutil.rmtree(tree.parent, ignore_errors=True)
    return True
