"""One run by what the user calls it: an id, a part of one, a path, or `latest`."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable
from pathlib import Path

from dgc.errors import IntegrityError, ResourceError, UsageError
from dgc.run.paths import RunDir
from dgc.run.status import State, read_status
from dgcctl.core.runs import filters
from dgcctl.core.runs.listing import is_closed, iterate, no_status, read_run, repeated_by
from dgcctl.core.runs.run_ids import short_forms

_LISTED = 8  # runs that a short name may mean; more would fill a screen


def find_run(reference: str | Path, runs: Path) -> RunDir:
    """The run that an id, a unique prefix (of the id
    or of its last part), a path, or `latest` names.

    Raises UsageError with the nearest ids where there is none or more than one.
    """
    text = str(reference)
    path = Path(text)
    if ("/" in text or text == ".") or _is_file(path / "status.json"):
        return _by_path(path)
    known = list(iterate(runs))
    if not known:
        raise UsageError(
            f"{runs}: no runs here: `dgcctl train demo` makes one, --runs-dir or DGCCTL_RUNS_DIR"
            " names another"
        )
    if text == "latest":
        return latest(known)
    return _by_prefix(text, known)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that may not be looked into
        return False


def _by_path(path: Path) -> RunDir:
    run = RunDir(path.resolve())
    if _is_file(run.status) or _is_file(run.recipe):
        return run
    # asked before `there is no such folder`: it is there, and somebody's
    if run.path.is_dir() and is_closed(run):
        raise ResourceError(f"{path}: permission denied: ask its owner, or name another run")
    if not path.exists():
        near = difflib.get_close_matches(path.name, _beside(path), n=1, cutoff=0.5)
        hint = f" (did you mean {path.parent / near[0]}?)" if near else ""
        raise UsageError(f"{path}: there is no such folder{hint}: see `dgcctl runs ls`")
    raise UsageError(
        f"{path}: no run directory (it holds neither status.json nor recipe.yaml): see `dgcctl"
        " runs ls`"
    )


def _beside(path: Path) -> list[str]:
    """The runs that lie where a path looks for one."""
    try:
        return [run.id for run in iterate(path.parent)]
    except OSError:
        return []


def latest(known: list[RunDir]) -> RunDir:
    """The newest training that may be read, by when it began, as lists are sorted. A repetition
    (`rerun`) is meant only where there is nothing else.
    """
    # those of others that may not be read are passed over, unless there are no others
    known = [run for run in known if not is_closed(run)] or known
    return _newest(known, _is_training) or _newest(known, lambda _: True) or known[0]


def find_running(reference: str, runs: Path) -> RunDir:
    """As `find_run`, for who wants to stop it: `latest` is the newest run that is running, be it a
    training or a repetition. Raises UsageError where none is.
    """
    if reference != "latest":
        return find_run(reference, runs)
    find_run(reference, runs)  # raises where there are no runs at all
    found = _newest(list(iterate(runs)), _is_running)
    if found is None:
        raise UsageError(f"no run in {runs} is running: there is nothing to stop")
    return found


def _is_training(run: RunDir) -> bool:
    return not repeated_by(run)


def _is_running(run: RunDir) -> bool:
    return read_run(run).state == State.RUNNING


def _newest(known: list[RunDir], fits: Callable[[RunDir], bool]) -> RunDir | None:
    return next((run for run in sorted(known, key=_began, reverse=True) if fits(run)), None)


def _began(run: RunDir) -> tuple[float, str]:
    try:
        status = read_status(run)
    except (OSError, IntegrityError, ValueError, TypeError):
        status = no_status(run)
    return status.started, run.id


def _by_prefix(text: str, known: list[RunDir]) -> RunDir:
    found = [run for run in known if text in (run.id, *short_forms(run.id))]
    # a whole form before a beginning: an id may be another one's prefix
    found = found or [
        run
        for run in known
        if any(form.startswith(text) for form in (run.id, *short_forms(run.id)))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(run.id for run in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UsageError(
            f"{text}: {len(found)} runs begin so ({names}{more}): give more of the id, or `latest`"
        )
    if filters.is_filter(text):
        raise UsageError(
            f"{text}: is a filter, and one run is meant here: `dgcctl runs ls {shlex.quote(text)}`"
            " lists those that fit"
        )
    words = ["latest", *(form for run in known for form in (run.id, *short_forms(run.id)))]
    near = difflib.get_close_matches(text, words, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"the newest is {known[0].id}"
    raise UsageError(f"{text}: no such run ({hint}): see `dgcctl runs ls`")
