"""The state of a git checkout as a record from which it can be restored, and the proof that it can.
No torch.

A record is: the commit, a patch from it to the files that lie here, and copies of files that git
does not track or that a patch cannot carry. It is proven when it is made: commit and patch are put
together in an index of their own and held against the files, byte by byte, and the patch is applied
backwards there. Nothing in the checkout is written.

Programs that a user's git puts between its blobs and the files (filters, as those of git-lfs) have
no part in it: where the record is restored they may be others, or absent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgc.run import git
from dgc.run.file_kinds import is_code, is_secret
from dgc.run.git import GitError
from dgc.run.leaving_out import SUBMODULE
from dgc.run.needed import Needed, loaded_from
from dgc.run.untracked import Collector

CHANGED_FILE_LIMIT = 8 << 20
_GITLINK = "160000"
_BACKWARDS = ("apply", "--cached", "--reverse", "--check", "--binary", "-")


@dataclass(frozen=True)
class Change:
    """A tracked file that is not as it was committed;
    its size before or now, whichever is larger.
    """

    name: str
    modes: tuple[str, str]
    size: int


@dataclass
class Record:
    """What was found. `problem` says why the code cannot be restored from it ("": it can)."""

    commit: str
    root: Path
    branch: str
    patch: bytes
    collected: Collector
    sparse: int = 0
    hidden: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    problem: str = ""

    def facts(self) -> dict[str, Any]:
        """The part of git.json that describes the checkout."""
        found = self.collected.found
        return {
            "commit": self.commit,
            "branch": self.branch,
            "root": git.readable(str(self.root)),
            "dirty": bool(self.patch or found.files or found.left_out),
            "patch_sha256": hashlib.sha256(self.patch).hexdigest() if self.patch else None,
            "untracked": found.files,
            "left_out": found.left_out,
            "left_out_count": found.left_out_count,
            "left_out_reasons": dict(found.left_out_reasons),
            "not_code": {
                "files": dict(found.other_kinds.most_common(20)),
                "bytes": found.other_bytes,
            },
            "kept_whole": self.whole,
            "hidden_changes": self.hidden,
            "filters": False,
            "sparse": self.sparse,
            "restorable": not self.problem,
            "problem": self.problem,
        }


def read(
    root: Path, target: Path | None = None, *, secrets: bool = False, package: Path | None = None
) -> Record:
    """Record the checkout at `root`, copying files below `target`.
    Raises GitError, also where nothing is committed.

    `package`: a folder whose code is recorded even where git is told to ignore it.
    """
    # the commit behind a tag or branch, and an error where there is none
    commit = git.text(root, "rev-parse", "--verify", "HEAD^{commit}")
    needed = Needed(root, package, loaded_from(root))
    collector = Collector(root, target, secrets, needed)
    names = list(dict.fromkeys([*_not_tracked(root), *needed.not_tracked()]))
    first = needed.first(names)
    collector.take_untracked(first)  # before all others: the number of copies is bounded
    record = Record(
        commit, root, git.text(root, "rev-parse", "--abbrev-ref", "HEAD"), b"", collector
    )
    with tempfile.TemporaryDirectory(prefix="dgc-record-") as folder:
        index = _Index(root, Path(folder))
        record.sparse, record.hidden = index.unhide()
        # changed in time or size but not in content, perhaps; or it lies here as a filter made it
        asked = [*index.touched(), *index.filtered()]
        suspects = [name for name in asked if is_code(name) and not is_secret(name)]
        changes, without = _sorted_out(index.changes(), collector)
        record.patch = index.patch(without)
        record.problem = _prove(
            record, {*changes, *suspects} - set(without), Path(folder), index.config
        )
    # what the code does not need comes last, as far as the limits allow
    done = set(first)
    collector.take_untracked(name for name in names if name not in done)
    record.problem = "; ".join(filter(None, (record.problem, collector.found.problem())))
    return record


def _sorted_out(changes: list[Change], collector: Collector) -> tuple[list[str], list[str]]:
    """Names of the changes for the patch, and of those that stay out of it (why is noted)."""
    kept: list[str] = []
    without: list[str] = []
    for change in changes:
        why = _reason_against(change, secrets=collector.secrets)
        (without if why else kept).append(change.name)
        # what stays out of the patch is named, so that whoever restores knows what is missing
        if why:
            collector.leave_out(change.name, why)
    return kept, without


def _reason_against(change: Change, *, secrets: bool) -> str:
    # a commit says at which commit a submodule is;
    # what changed inside of it is another repository's
    if _GITLINK in change.modes:
        return SUBMODULE
    if not secrets and is_secret(change.name):
        return "looks like a secret"
    if change.size > CHANGED_FILE_LIMIT:
        return f"changed, and larger than {CHANGED_FILE_LIMIT >> 20} MiB"
    return ""


def _not_tracked(root: Path) -> list[str]:
    """Files that git neither tracks nor ignores."""
    return git.names(git.run(root, "ls-files", "--others", "--exclude-standard", "-z"))


class _Index:
    """A copy of the checkout's index, in which no file is hidden from git."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.config = git.no_filters(root)
        copy = folder / "index"
        real = root / _path(root, "index")
        if real.is_file():
            # A copy: everything below (unhiding, refreshing) would else change what `git status`
            # says in the user's checkout.
            shutil.copyfile(real, copy)
            shutil.copystat(real, copy)  # git compares the index's time with its files'
        self.env = {"GIT_INDEX_FILE": str(copy)}
        if not real.is_file():
            self.git("read-tree", "HEAD")

    def git(self, *arguments: str, data: bytes | None = None) -> bytes:
        return git.run(self.root, *arguments, env=self.env, data=data, config=self.config)

    def unhide(self) -> tuple[int, list[str]]:
        """Show git the files that it was told to overlook;
        how many are not checked out, and which were hidden.
        """
        listed = [(entry[:1], entry[2:]) for entry in git.names(self.git("ls-files", "-v", "-z"))]
        # lower case: assume-unchanged; S: skip-worktree, as in a sparse checkout
        marked = [name for tag, name in listed if tag.islower() or tag == "S"]
        # lexists: a link that leads nowhere is here all the same
        here = [name for name in marked if os.path.lexists(self.root / name)]
        absent = sum(tag in "Ss" and not os.path.lexists(self.root / name) for tag, name in listed)
        if here:
            names = b"".join(os.fsencode(name) + b"\0" for name in here)
            # Two flags by which a user asks git to overlook a file. A change in such a file is a
            # change of the code all the same.
            for flag in ("--no-assume-unchanged", "--no-skip-worktree"):
                self.git("update-index", flag, "-z", "--stdin", data=names)
        return absent, [git.readable(name) for name in here]

    def touched(self) -> list[str]:
        """Files whose time or size is not that of the index:
        changed, or changed back, or changed behind a filter.
        """
        return git.names(self.git("diff-files", "--name-only", "--ignore-submodules=all", "-z"))

    def filtered(self) -> list[str]:
        """Files for which .gitattributes name a filter: git takes them for unchanged as long as
        nobody touches them, whatever the filter made of them.
        """
        tracked = self.git("ls-files", "-z")
        told = git.names(self.git("check-attr", "-z", "--stdin", "filter", data=tracked))
        # name, `filter`, value
        values = zip(told[::3], told[2::3], strict=True)
        return [name for name, value in values if value not in ("unspecified", "unset")]

    def changes(self) -> list[Change]:
        """Tracked files that differ from HEAD, submodules included."""
        answer = git.names(self.git(*git.LIST, "--ignore-submodules=none", "HEAD"))
        # `-z` gives heads and names in turn; a name may hold anything but a NUL
        pairs = list(zip(answer[::2], answer[1::2], strict=True))
        heads = [head.split() for head, _ in pairs]
        sizes = self._sizes([head[2] for head in heads])
        return [
            Change(
                name,
                (head[0].lstrip(":"), head[1]),
                # before or now: a large file that was emptied is large in the patch too
                max(sizes.get(head[2], 0), _size(self.root / name)),
            )
            for head, (_, name) in zip(heads, pairs, strict=True)
        ]

    def _sizes(self, blobs: list[str]) -> dict[str, int]:
        asked = "".join(f"{blob}\n" for blob in dict.fromkeys(blobs) if blob.strip("0"))
        answers = (
            self.git("cat-file", "--batch-check=%(objectname) %(objectsize)", data=asked.encode())
            if asked
            else b""
        )
        found = (line.split() for line in answers.decode().splitlines())
        return {
            words[0]: int(words[1]) for words in found if len(words) == 2 and words[1].isdigit()
        }

    def patch(self, without: list[str]) -> bytes:
        """From HEAD to the files that lie here."""
        return self.git(*git.PATCH, "--ignore-submodules=all", "HEAD", *git.exclude(without))


# --- the proof ------------------------------------------------------------------------------------


def _prove(record: Record, names: set[str], folder: Path, config: Mapping[str, str]) -> str:
    """Hold the files against what the record restores;
    keep whole what a patch cannot carry. "" or what is wrong.
    """
    try:
        env = put_together(record.root, record.commit, record.patch, folder)
        # Both directions: forwards it gives the files, backwards the commit; a patch that does
        # one alone has lost something (a mode, a file's end).
        if record.patch:
            git.run(record.root, *_BACKWARDS, env=env, data=record.patch)
        # a file that is gone, or a link, is held in the patch alone
        here = [name for name in sorted(names) if _is_file(record.root / name)]
        tree = _checked_out(record.root, here, folder, env, config)
    except GitError as error:
        return f"git.patch does not apply ({error})"
    wrong: list[str] = []
    for name in here:
        if not _same(record.root / name, tree / name):
            taken = record.collected.take(name)
            # A filter (LFS) or line ends stand between the blob and the file; then the file itself
            # is copied.
            (record.whole if taken else wrong).append(git.readable(name))
    return f"not restored as they are here: {', '.join(wrong)}" if wrong else ""


def put_together(root: Path, commit: str, patch: bytes, folder: Path) -> dict[str, str]:
    """Put a commit and a patch into an index in `folder`;
    git uses it with the variables returned. Raises GitError.
    """
    env = {
        "GIT_INDEX_FILE": str(folder / "restored"),
        # New blobs go into a folder that is thrown away; the repository's own are only read.
        "GIT_OBJECT_DIRECTORY": str(folder / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(root / _path(root, "objects")),
    }
    (folder / "objects").mkdir(exist_ok=True)
    git.run(root, "read-tree", commit, env=env)
    if patch:
        git.run(root, "apply", "--cached", "--binary", "-", env=env, data=patch)
    return env


def _checked_out(
    root: Path, names: list[str], folder: Path, env: dict[str, str], config: Mapping[str, str]
) -> Path:
    """A folder with these files as a rerun would check them out: line ends are a part of the
    proof, and filters are none.
    """
    tree = folder / "tree"
    # checkout-index stops at a name that it does not know
    known = set(git.names(git.run(root, "ls-files", "-z", env=env)))
    asked = b"".join(os.fsencode(name) + b"\0" for name in names if name in known)
    if asked:
        words = ("checkout-index", f"--prefix={tree}/", "-z", "--stdin")
        git.run(root, *words, env=env, data=asked, config=config)
    return tree


def applies(root: Path, commit: str, patch: bytes) -> str:
    """ "" where a patch applies to a commit of this repository; else what git says."""
    with tempfile.TemporaryDirectory(prefix="dgc-record-") as folder:
        try:
            put_together(root, commit, patch, Path(folder))
        except GitError as error:
            return str(error)
    return ""


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _same(path: Path, other: Path) -> bool:
    try:
        return path.read_bytes() == other.read_bytes()
    except OSError:
        return False


def _path(root: Path, name: str) -> str:
    return os.fsdecode(git.run(root, "rev-parse", "--git-path", name).removesuffix(b"\n"))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
