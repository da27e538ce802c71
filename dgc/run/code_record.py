"""git.json of a run: which code ran, what of it was kept, and the sentences that say so to the
user. No torch.

commit, branch, root     the checkout of the running code (commit None: there is none, `problem`
                         says why)
patch_sha256             git.patch, from the commit to the files as they were
untracked                file -> SHA-256 of each copy below untracked/
kept_whole               those of them that git tracks, but that a filter or line ends keep out of
                         a patch
left_out                 file -> why it was not copied: all that the running code needs, and at
                         most 100 others
left_out_count, _reasons how many were left out, and how many for each reason
not_code                 untracked files that are neither code nor a recipe: how many of a suffix,
                         bytes
hidden_changes, sparse   files that git was told to overlook; how many are not checked out
filters                  false: no filter of git has a part in the record, nor in restoring it
restorable, problem      whether commit, patch and copies give the files back (proven when it was
                         written)
code, version            digest of what computes; version of the package
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dgc
from dgc import settings
from dgc.run import checkout, git, leaving_out
from dgc.run.files import atomic_write
from dgc.run.git import GitError
from dgc.run.paths import RunDir

_NO_CHECKOUT = "the package lies in no git checkout"
_ENVIRONMENTS = frozenset(("site-packages", "dist-packages"))
Sentence = tuple[str, str]  # level (info, warning) and text


def own_checkout() -> Path | None:
    """The git checkout that the running code belongs to; None where there is none.

    A folder that merely lies inside a repository (an environment in a project's folder) is no part
    of it: the repository must track the package. Raises GitError where git may not look.
    """
    package = _package()
    root = git.toplevel(package)
    if root is None:
        return None
    init = (package / "__init__.py").relative_to(root)
    # tracked, not merely inside: an environment lies in a project's folder without being part of it
    return root if git.run(root, "ls-files", "-z", "--", f":(top,literal){init}") else None


def _package() -> Path:
    return Path(dgc.__file__).resolve().parent


def own_code_facts(run: RunDir | None = None) -> dict[str, Any]:
    """What git.json says of the running code; patch and copies go into `run`, if given."""
    try:
        root = own_checkout()
    except GitError as error:
        return nowhere(str(error))
    return code_facts(root, run) if root is not None else nowhere(why_no_checkout(_package()))


def code_facts(root: Path, run: RunDir | None = None) -> dict[str, Any]:
    """The same for the checkout at `root`."""
    target = run.file("untracked") if run is not None else None
    package = next(
        (
            folder
            for folder in (_package(), root / "dgc")
            if root in folder.parents and folder.is_dir()
        ),
        None,
    )
    try:
        # checked before the record: without a commit there is nothing a patch could start from
        if not git.has_commits(root):
            return nowhere(_no_commit(root))
        record = checkout.read(root, target, secrets=settings.record_secrets(), package=package)
    except GitError as error:
        return nowhere(str(error))
    if run is not None and record.patch:
        atomic_write(run.file("git.patch"), record.patch)
    return record.facts() | {"version": dgc.__version__}


def why_no_checkout(package: Path) -> str:
    """Why a package belongs to no checkout;
    for a folder that looks like one, with what to do about it.
    """
    if not _ENVIRONMENTS.isdisjoint(package.parts):
        return f"{_NO_CHECKOUT} ({package.parent})"
    root = git.toplevel(package)
    if root is not None and not git.has_commits(root):
        return _no_commit(root)
    if root is not None:
        return (
            f"git does not track the package in {root}: `git add {package.relative_to(root)}`, `git"
            " commit`"
        )
    # git sees no checkout; a folder that looks like one still deserves a word
    place = next(
        (folder / ".git" for folder in package.parents if os.path.exists(folder / ".git")), None
    )
    if place is None:
        return f"{_NO_CHECKOUT} ({package.parent})"
    # a worktree or a submodule: .git is a file that leads elsewhere
    if place.is_file():
        target = (
            git.readable(place.read_bytes()[:1000])
            .removeprefix("gitdir:")
            .removesuffix("\\n")
            .strip()
        )
        return (
            f"{place} leads to {target or 'nothing'}, where no git repository is: clone again, or "
            "`git worktree repair` in the repository it came from"
        )
    state = "damaged" if any(place.iterdir()) else "empty"
    return (
        f"{place} is no git repository (it is {state}): clone again, or `git init`, `git add -A`,"
        " `git commit`"
    )


def _no_commit(root: Path) -> str:
    return f"the git repository {root} has no commit yet: `git add -A`, `git commit`"


def nowhere(problem: str) -> dict[str, Any]:
    return {"commit": None, "restorable": False, "problem": problem, "version": dgc.__version__}


# --- said -----------------------------------------------------------------------------------------


def sentences(facts: Mapping[str, Any]) -> list[Sentence]:
    """What the user should know of a record: what was copied,
    what was left out and why, whether it can be restored.
    """
    said: list[Sentence] = []
    if installed := as_installed(facts):
        said.append(("info", f"{installed}: `rerun` repeats the run where that is installed"))
    elif facts.get("restorable") is False:
        harmless = str(facts.get("problem")).startswith((_NO_CHECKOUT, "git is not installed"))
        level = "info" if harmless else "warning"  # nobody's fault
        said.append(
            (
                level,
                (
                    "its code cannot be restored from its record:"
                    f" {facts.get('problem') or 'no reason kept'}"
                ),
            )
        )
    said += [("warning", text) for text in left_out(facts)]
    if copied := list(_mapping(facts, "untracked")):
        said.append(("info", f"copied into the record: {_some(copied)}"))
    if kinds := _mapping(_mapping(facts, "not_code"), "files"):
        shown = ", ".join(f"{count:,} {kind}" for kind, count in list(kinds.items())[:5])
        total = sum(kinds.values())
        said.append(
            (
                "info",
                (
                    f"not copied, neither code nor a recipe: {_files(total)} that git does not"
                    f" track ({shown})"
                ),
            )
        )
    if hidden := facts.get("hidden_changes"):
        said.append(("info", f"recorded as here, though git was told to overlook: {_some(hidden)}"))
    if sparse := facts.get("sparse"):
        said.append(("info", f"sparse checkout: {_files(sparse)} of the commit are not here"))
    return said


def as_installed(facts: Mapping[str, Any]) -> str:
    """The code of a run in words where it is an installed package, which has no commit; else ""."""
    site = f"{_NO_CHECKOUT} ("
    problem = str(facts.get("problem"))
    place = Path(problem.removeprefix(site).removesuffix(")"))
    if not problem.startswith(site) or _ENVIRONMENTS.isdisjoint(place.parts):
        return ""
    digest = f" (code {str(facts['code'])[:10]})" if facts.get("code") else ""
    return f"code: dgcctl {facts.get('version')}, as it is installed{digest}"


def left_out(facts: Mapping[str, Any]) -> list[str]:
    """The sentence about what a restored worktree lacks ([]: nothing)."""
    names = left_out_names(facts)
    if not names:
        return []
    reasons = {str(why): int(number) for why, number in _mapping(facts, "left_out_reasons").items()}
    return [leaving_out.said(names, reasons, left_out_count(facts))]


def left_out_count(facts: Mapping[str, Any]) -> int:
    """How many were left out, named or not."""
    # counts of older records may be missing; the names that are there are a lower bound
    return max(len(left_out_names(facts)), int(facts.get("left_out_count") or 0))


def left_out_names(facts: Mapping[str, Any]) -> dict[str, str]:
    """File -> why it was left out, also from records of release 0.1, which gave no reason."""
    named = facts.get("left_out")
    if isinstance(named, Mapping):
        return {str(name): str(why) for name, why in named.items()}
    older = facts.get("untracked_left_out")
    return (
        {str(name): "larger than 1 MiB" for name in older}
        if isinstance(older, list | tuple)
        else {}
    )


def _mapping(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{_files(len(listed))}: {', '.join(listed[:5])}{', ...' if len(listed) > 5 else ''}"


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"
