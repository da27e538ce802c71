"""Code of the user's that a recipe names: `python:package.module:function`. It runs only where its
package is trusted by name, and what ran of it is recorded. No torch.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from dgc import settings
from dgc.errors import IntegrityError, UnsafeFileError, UsageError
from dgc.run import git
from dgc.run.file_kinds import is_secret
from dgc.run.files import file_digest, read_json
from dgc.run.git import GitError
from dgc.run.untracked import COUNT_LIMIT, FILE_LIMIT, PRIVATE_KEY, TOTAL_LIMIT

PREFIX = "python:"
PATTERN = r"python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
CODE_KEYS = ("model.name", "data.name")  # of a recipe: what may name code of the user's
_NAME = re.compile(PATTERN, re.ASCII)


def is_own(name: str) -> bool:
    """Whether a name in a recipe means code of the user's."""
    return name.startswith(PREFIX)


def package_of(name: str) -> str:
    """The package of `python:package.module:function`."""
    return name.removeprefix(PREFIX).partition(":")[0].partition(".")[0]


def require_trust(key: str, name: str) -> None:
    """Raise UnsafeFileError (5) where the package of a name is not trusted. Nothing is imported."""
    package = package_of(name)
    # by the package, which is what a person can know; a single function's name says nothing
    if is_own(name) and package not in settings.trusted_code():
        raise UnsafeFileError(
            f"{key} = {name}: this runs code of {package}, which was not trusted: nothing of it was"
            f" run; if you know it, say --trust-code {package}"
        )


def require_trusted(values: Mapping[str, Any]) -> None:
    """The same for a whole recipe, given as dotted keys and values."""
    for key in CODE_KEYS:
        require_trust(key, str(values.get(key, "")))


def trust_words(names: Iterable[str]) -> str:
    """` --trust-code PACKAGE` for a command that is printed to follow: of the packages that `names`
    (of a recipe) mean, those that are trusted already. No record may suggest to trust more.
    """
    packages = {package_of(name) for name in names if is_own(name)}
    known = sorted(packages & settings.trusted_code())
    # trust is only repeated, never suggested: a record may come from a stranger
    return "".join(f" --trust-code {package}" for package in known)


def untrusted(names: Iterable[str]) -> list[str]:
    """The packages that `names` (of a recipe) mean and that are not trusted now."""
    packages = {package_of(name) for name in names if _NAME.fullmatch(name)}
    return sorted(packages - settings.trusted_code())


def trust_words_of(record: Path) -> str:
    """The same for a run, by what its trainer wrote down (recipe.json);
    "" where it did not begin.
    """
    try:
        recipe: Any = read_json(record).get("recipe")
        parts = [recipe[part] for part in ("model", "data")]
        return trust_words([str(part["name"]) for part in parts])
    except (OSError, IntegrityError, TypeError, KeyError):  # a hint is no reason to fail
        return ""


def load(key: str, name: str) -> Callable[..., Any]:
    """The function that a recipe's `key` names.

    Raises UnsafeFileError (5) where its package is not trusted, or the function is defined outside
    of that package; UsageError where there is no such thing or importing it fails.
    """
    require_trust(key, name)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{key} = {name}: write python:package.module:function")
    module_name, _, attribute = name.removeprefix(PREFIX).partition(":")
    found: Any = getattr(_imported(key, name, module_name), attribute, None)
    if not callable(found):
        raise UsageError(f"{key} = {name}: {module_name} has no function {attribute}")
    package = package_of(name)
    home = str(getattr(found, "__module__", ""))
    # a trusted package may import a function from one
    # that is not: it is held against where it was defined
    if home.partition(".")[0] != package or not _inside(found, package):
        raise UnsafeFileError(
            f"{key} = {name}: {attribute} is defined in {home or 'no module'}, outside of"
            f" {package},"
            " which alone was trusted: it was not called; name it where it is defined"
        )
    function: Callable[..., Any] = found
    return function


def _imported(key: str, name: str, module: str) -> ModuleType:
    """The working directory is looked at last, so that it hides nothing that is installed."""
    # appended, not put in front: a file here must not take the place of a library
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # missing is what was named, or a parent of it; else something that it imports is missing
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise UsageError(
                f"{key} = {name}: no module {error.name} here: start where it lies (now in"
                f" {Path.cwd()}), install it, or name its folder in PYTHONPATH"
            ) from error
        raise UsageError(f"{key} = {name}: cannot be imported: {_fault(error)}") from error
    except Exception as error:
        raise UsageError(f"{key} = {name}: cannot be imported: {_fault(error)}") from error


def fault(name: str, error: BaseException) -> str:
    """An exception of the user's code in one line,
    with the last line of theirs that it came from.
    """
    return _fault(error, [str(root) for root in _roots(package_of(name))])


def _fault(error: BaseException, roots: Iterable[str] = ()) -> str:
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
    ]
    # the last line of the user's own code, if one is among them: what called it is ours
    own = [frame for frame in frames if any(frame.filename.startswith(root) for root in roots)]
    where = "".join(f"{frame.filename}:{frame.lineno}: " for frame in (own or frames)[-1:])
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"


def _inside(found: Callable[..., Any], package: str) -> bool:
    """Whether the source of a function lies in the package's own folder."""
    try:
        # unwrapped: a decorator of another package would hide where the function lies
        file = Path(inspect.getfile(inspect.unwrap(found))).resolve()
    except TypeError:  # compiled into the interpreter
        return False
    return any(root == file or root in file.parents for root in _roots(package))


def _roots(package: str) -> list[Path]:
    """The folders of an imported package; of a single module, its file."""
    module = sys.modules.get(package)
    folders = list(getattr(module, "__path__", ()))
    file = getattr(module, "__file__", None)
    return [Path(place).resolve() for place in folders or ([file] if file else [])]


# --- the record -----------------------------------------------------------------------------------


def facts(names: Iterable[str]) -> dict[str, Any]:
    """own_code.json of these names: of each package its place, its git state, and the digest of
    every file of it that was imported.
    """
    packages = sorted({package_of(name) for name in names if is_own(name)})
    return {package: _facts_of(package) for package in packages}


def _facts_of(package: str) -> dict[str, Any]:
    roots = _roots(package)
    place = roots[0].parent if roots else Path.cwd()
    files = {
        os.path.relpath(path, place): file_digest(path) for path in sorted(_imported_files(package))
    }
    return {"place": str(place), "files": files, "git": _git(place)}


def _imported_files(package: str) -> set[Path]:
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name == package or name.startswith(f"{package}.")):
            found.add(Path(file).resolve())
    return found


def _git(place: Path) -> dict[str, Any] | None:
    """Commit of the checkout around the package, and whether anything in it differs from that."""
    try:
        root = git.toplevel(place)
        if root is None or not git.has_commits(root):
            return None
        commit = git.text(root, "rev-parse", "HEAD")
        changed = bool(git.run(root, "status", "--porcelain", "--", str(place)))
    except GitError:
        return None
    return {"root": str(root), "commit": commit, "changed": changed}


def with_copies(recorded: Mapping[str, Any], folder: Path, *, secrets: bool) -> dict[str, Any]:
    """The record with copies of its files in `folder`, which `kept` names: a digest tells that a
    file has changed, and gives nobody back what ran. Limits are those of untracked files.
    """
    left = TOTAL_LIMIT
    told: dict[str, Any] = {}
    for package, facts in recorded.items():
        kept = []
        for name, sha in list(_files(facts).items())[:COUNT_LIMIT]:
            data = _bytes_of(Path(str(facts["place"])) / name, min(left, FILE_LIMIT))
            # as it was imported, or not at all
            if not _lies_inside(name) or hashlib.sha256(data).hexdigest() != sha:
                continue
            if not secrets and (is_secret(name) or PRIVATE_KEY.search(data)):
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            left -= len(data)
            kept.append(name)
        told[package] = {**facts, "kept": kept}
    return told


def _bytes_of(path: Path, limit: int) -> bytes:
    """A file's content; nothing where it is larger than `limit` or cannot be read."""
    try:
        return path.read_bytes() if path.stat().st_size <= limit else b""
    except OSError:
        return b""


def kept_files(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Copied file -> its SHA-256, of all packages of a record."""
    return {
        name: sha
        for told in recorded.values()
        for name, sha in _files(told).items()
        if name in _kept(told) and _lies_inside(name)
    }


def _kept(told: Mapping[str, Any]) -> list[Any]:
    kept = told.get("kept")
    return kept if isinstance(kept, list) else []


def _lies_inside(name: str) -> bool:
    """A record may be somebody else's: no file outside of its folder is opened."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts


def digest(recorded: Mapping[str, Any]) -> str:
    """One digest over all files of a record."""
    text = "".join(
        f"{package}\0{name}\0{sha}\0"
        for package, told in sorted(recorded.items())
        for name, sha in sorted(_files(told).items())
    )
    return hashlib.sha256(text.encode()).hexdigest()


def held_against_now(recorded: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(file, its digest in the record, its digest now where it was). Nothing is imported."""
    return [
        (name, sha, file_digest(Path(str(told.get("place", ""))) / name))
        for told in recorded.values()
        for name, sha in _files(told).items()
    ]


def changed_files(recorded: Mapping[str, Any], copies: Path) -> list[str]:
    """Files of a record that are others now, in words, with where their copies lie."""
    kept = kept_files(recorded)
    return [
        f"{name} was {sha[:12]}, is {now[:12]}"
        + (f" (as it was: {copies / name})" if name in kept else "")
        for name, sha, now in held_against_now(recorded)
        if now != sha
    ]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Files that differ between two records, in words."""
    said = []
    for package in sorted({*before, *now}):
        old, new = _files(before.get(package, {})), _files(now.get(package, {}))
        said += [
            f"{name} was {old.get(name, 'absent')[:12]}, is {new.get(name, 'absent')[:12]}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
    return said


def _files(told: Any) -> dict[str, str]:
    files = told.get("files") if isinstance(told, Mapping) else None
    return {str(k): str(v) for k, v in files.items()} if isinstance(files, Mapping) else {}
