"""Where things lie and whether the network may be used: flag > environment > project file >
default.

The project file is `dgcctl.toml`, found in the working directory or the nearest folder above it:

    runs_dir = "runs"
    data_dir = "/srv/data"
    cache_dir = ".cache"
    offline = true
    trust_code = "mypackage"

Its values become defaults of the environment, so that every process started from here sees the same
ones.
"""

from __future__ import annotations

import difflib
import os
import shlex
import tomllib
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from dgc import settings
from dgc.errors import UsageError

FILE_NAME = "dgcctl.toml"
_VARIABLES = {
    "runs_dir": "DGCCTL_RUNS_DIR",
    "data_dir": "DGCCTL_DATA_DIR",
    "cache_dir": "DGCCTL_CACHE_DIR",
    "offline": "DGCCTL_OFFLINE",
    "record_secrets": "DGCCTL_RECORD_SECRETS",
    "trust_code": "DGCCTL_TRUST_CODE",
}
_DEFAULTS: dict[str, str] = {}  # what the project file gave to the environment
_SWITCHES = ("offline", "record_secrets")
_PACKAGES = "trust_code"


def project_file(start: Path) -> Path | None:
    """The nearest `dgcctl.toml` at or above `start`."""
    return next(
        (
            path
            for folder in (start, *start.parents)
            # os.path: a folder that may not be looked into has no project file for this user
            if os.path.isfile(path := folder / FILE_NAME)
        ),
        None,
    )


def apply_project_file(environment: MutableMapping[str, str], start: Path | None = None) -> None:
    """Set each variable that the project file names
    and the environment does not. Raises UsageError.
    """
    path = project_file(start or Path.cwd())
    # a project without a file is the usual case
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML ({error}): mend or remove it") from error
    for key, value in values.items():
        name, text = _variable(path, key), _text(path, key, value)
        if name not in environment:
            environment[name] = _DEFAULTS[name] = text


def _variable(path: Path, key: str) -> str:
    if key not in _VARIABLES:
        near = difflib.get_close_matches(key, _VARIABLES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_VARIABLES)}"
        raise UsageError(f"{path}: unknown setting {key} ({hint})")
    return _VARIABLES[key]


def _text(path: Path, key: str, value: Any) -> str:
    if key in _SWITCHES and isinstance(value, bool):
        return "1" if value else "0"
    if key == _PACKAGES:
        names = [value] if isinstance(value, str) else value
        if isinstance(names, list) and all(isinstance(n, str) and n.isidentifier() for n in names):
            return ",".join(names)
        raise UsageError(f"{path}: {key} = {value!r} should be the name of a package, or a list")
    if key not in _SWITCHES and isinstance(value, str):
        # relative to the file, not to where the command was typed
        return str(path.parent / Path(value).expanduser())
    wanted = "true or false" if key in _SWITCHES else "a path in quotes"
    raise UsageError(f"{path}: {key} = {value!r} should be {wanted}")


def runs_dir(flag: Path | None = None) -> Path:
    """The folder of the runs: the flag, else $DGCCTL_RUNS_DIR, else ./runs."""
    return flag or settings.runs_dir()


def runs_dir_of_project() -> Path | None:
    """What the project file says of the folder of the runs, for who leaves the environment as it
    is; None where the environment names one, or no file does.
    """
    if settings.runs_dir_is_named():
        return None
    found: dict[str, str] = {}
    apply_project_file(found)
    named = found.get(settings.RUNS_DIR)
    return Path(named) if named else None


def present_runs_dir(flag: Path | None = None) -> Path:
    """The same, for those who look at runs.
    Raises UsageError where the folder that was named is not there.

    A default that is not there yet (./runs, or what the project file says) is a folder without
    runs.
    """
    folder = runs_dir(flag)
    # a default that is not there is no mistake; a name that somebody gave is
    default = _DEFAULTS.get("DGCCTL_RUNS_DIR") == str(folder) or not settings.runs_dir_is_named()
    if (flag or not default) and not folder.is_dir():
        source = "--runs-dir" if flag else "DGCCTL_RUNS_DIR"
        raise UsageError(
            f"{folder}: no such folder ({source}): check the path; `dgcctl train demo` makes a"
            " first run"
        )
    return folder


def data_dir(flag: Path | None = None) -> Path | None:
    """The folder that holds the data sets:
    the flag, else $DGCCTL_DATA_DIR, else None (./data/<name>).
    """
    return flag or settings.data_dir()


def cache_dir(flag: Path | None = None) -> Path:
    """The folder of downloads: the flag, else $DGCCTL_CACHE_DIR, else the user's cache folder."""
    return flag or settings.cache_dir()


def offline() -> bool:
    """Whether $DGCCTL_OFFLINE forbids the network."""
    return settings.offline()


def run_argument(path: Path) -> str:
    """What to type for the run in the folder `path`: its id where commands find it by that, else
    the folder. For the shell, so that a command can be copied as it stands.
    """
    # by the id only where commands would look there
    here = path.absolute().parent == runs_dir().absolute()
    return path.name if here else shlex.quote(str(path))
