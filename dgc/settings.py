"""Every DGCCTL_* variable of the environment: what it may be, and the one place where it is read.
No torch.

    DGCCTL_RUNS_DIR, DGCCTL_DATA_DIR, DGCCTL_CACHE_DIR    folders (`~` is the home folder)
    DGCCTL_OFFLINE             true | false: whether the network is forbidden
    DGCCTL_RECORD_SECRETS      true | false: whether a run's record may hold files that look like
                               secrets
    DGCCTL_TRUST_CODE          packages, with commas between them, whose code a recipe may run
    DGCCTL_REGISTRY, DGCCTL_CHECKPOINTS_LOCK, DGCCTL_KEYS    files
    DGCCTL_GDRIVE_URL, DGCCTL_ONEDRIVE_URL    addresses that stand in for the hosts of released
                                              checkpoints
    DGCCTL_RANK_TIMEOUT        seconds that a rank waits for the others
    DGCCTL_ON_END_SECONDS      how long the command of --on-end may take
    DGCCTL_VERBOSITY           -1 (quiet), 0, 1 (verbose)
    DGCCTL_DASH_TOKEN          the token of a dashboard that is served
    DGCCTL_CRASH_AT            for tests: name:n ends the process at the n-th passage of a named
                               point
    DGCCTL_LAUNCHED            set by the launcher of several ranks for its children
    DGCCTL_RUN, DGCCTL_RUN_PATH, DGCCTL_RUN_NAME, DGCCTL_RUN_STATE, DGCCTL_RUN_REASON,
    DGCCTL_RUN_EXIT_CODE, DGCCTL_RUN_STEP, DGCCTL_RUN_EPOCH, DGCCTL_RUN_SECONDS,
    DGCCTL_RUN_TOP1_ERROR, DGCCTL_RUN_METRICS    set for the command of --on-end, and never read

Empty means not set. A switch is true, yes, on, 1 or false, no, off, 0, in any case. All else is a
UsageError.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from dgc.errors import UsageError

LAUNCHED = "DGCCTL_LAUNCHED"
RUNS_DIR = "DGCCTL_RUNS_DIR"
RUN = "DGCCTL_RUN"
RUN_PATH = "DGCCTL_RUN_PATH"
RUN_NAME = "DGCCTL_RUN_NAME"
RUN_STATE = "DGCCTL_RUN_STATE"
RUN_REASON = "DGCCTL_RUN_REASON"
RUN_EXIT_CODE = "DGCCTL_RUN_EXIT_CODE"
RUN_STEP = "DGCCTL_RUN_STEP"
RUN_EPOCH = "DGCCTL_RUN_EPOCH"
RUN_SECONDS = "DGCCTL_RUN_SECONDS"
RUN_TOP1_ERROR = "DGCCTL_RUN_TOP1_ERROR"
RUN_METRICS = "DGCCTL_RUN_METRICS"
VERBOSITY = "DGCCTL_VERBOSITY"
RECORD_SECRETS = "DGCCTL_RECORD_SECRETS"
TRUST_CODE = "DGCCTL_TRUST_CODE"
_TRUE, _FALSE = (
    frozenset(("1", "true", "yes", "on", "y", "t")),
    frozenset(("0", "false", "no", "off", "n", "f", "")),
)


def runs_dir() -> Path:
    """The folder of the runs; default ./runs."""
    return _path(RUNS_DIR) or Path("runs")


def runs_dir_is_named() -> bool:
    """Whether the folder of the runs is anything but the default."""
    return _path(RUNS_DIR) is not None


def data_dir() -> Path | None:
    """The folder that holds the data sets; None: ./data."""
    return _path("DGCCTL_DATA_DIR")


def cache_dir() -> Path:
    """The folder of downloads; default $XDG_CACHE_HOME/dgcctl, or ~/.cache/dgcctl."""
    return (
        _path("DGCCTL_CACHE_DIR")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dgcctl"
    )


def offline() -> bool:
    """Whether the network is forbidden."""
    return _switch("DGCCTL_OFFLINE")


def record_secrets() -> bool:
    """Whether files that look like secrets may be copied into the record of a run."""
    return _switch(RECORD_SECRETS)


def trusted_code() -> frozenset[str]:
    """The packages whose code a recipe may run."""
    names = frozenset(name.strip() for name in _text(TRUST_CODE).split(",") if name.strip())
    if not all(name.isidentifier() for name in names):
        raise _wrong(TRUST_CODE, "should be names of Python packages with commas between them")
    return names


def registry() -> Path | None:
    """Another registry of released checkpoints."""
    return _path("DGCCTL_REGISTRY")


def checkpoints_lock() -> Path | None:
    """Where the digests of fetched checkpoints are kept; None: in the cache."""
    return _path("DGCCTL_CHECKPOINTS_LOCK")


def keys_file() -> Path | None:
    """The dashboard's file of keys."""
    return _path("DGCCTL_KEYS")


def gdrive_url() -> str:
    """An address that stands in for Google Drive ("": the real one)."""
    return _address("DGCCTL_GDRIVE_URL")


def onedrive_url() -> str:
    """An address that stands in for OneDrive ("": the real one)."""
    return _address("DGCCTL_ONEDRIVE_URL")


def rank_timeout(default: float) -> float:
    """Seconds that a rank waits for the others."""
    return _seconds("DGCCTL_RANK_TIMEOUT", default)


def on_end_seconds() -> float:
    """How long the command of --on-end may take."""
    return _seconds("DGCCTL_ON_END_SECONDS", 600.0)


def verbosity() -> int:
    """-1 quiet, 0, 1 verbose."""
    given = _text(VERBOSITY) or "0"
    if given not in ("-1", "0", "1"):
        raise _wrong(VERBOSITY, "should be -1 (quiet), 0 or 1 (verbose)")
    return int(given)


def take_dash_token() -> str:
    """The token of a served dashboard,
    taken out of the environment so that no child sees it ("": make one).
    """
    return os.environ.pop("DGCCTL_DASH_TOKEN", "")


def launched() -> bool:
    """Whether this is a rank whose launcher says which of them was lost."""
    return _switch(LAUNCHED)


def crash_at_text() -> str:
    """For tests: `name:n`, the named point and the passage
    of it at which the process ends ("": nowhere).
    """
    return _text("DGCCTL_CRASH_AT")


def parse_crash_at(text: str) -> tuple[str, int]:
    """`name:n` -> (name, n)."""
    name, _, count = text.partition(":")
    if not (count or "1").isdigit():
        raise UsageError(
            f"DGCCTL_CRASH_AT={text!r}: should be name:n, as checkpoint.before-rename:2"
        )
    return name, int(count or "1")


def check() -> None:
    """Read all that can be wrong, so that a mistake is one line at once. Raises UsageError."""
    for read in (
        offline,
        record_secrets,
        trusted_code,
        verbosity,
        launched,
        gdrive_url,
        onedrive_url,
    ):
        # each raises by itself, with its variable's name
        read()
    rank_timeout(1.0)
    on_end_seconds()
    parse_crash_at(crash_at_text())


def _text(name: str) -> str:
    return os.environ.get(name, "").strip()


def _switch(name: str) -> bool:
    word = _text(name).lower()
    if word not in _TRUE and word not in _FALSE:
        raise _wrong(name, "should be true or false (also yes, no, on, off, 1, 0)")
    return word in _TRUE


def _seconds(name: str, default: float) -> float:
    given = _text(name)
    if not given:
        return default
    try:
        seconds = float(given)
    except ValueError:
        # NaN fails the comparison below as well, so one message serves both
        seconds = math.nan
    if not (0 < seconds < math.inf):
        raise _wrong(name, "should be a number of seconds above 0, as 600")
    return seconds


def _path(name: str) -> Path | None:
    given = _text(name)
    if not given:
        return None
    try:
        return Path(given).expanduser()
    # ~name of a user that is not here
    except RuntimeError as error:
        raise _wrong(name, "no such user's home folder: write the whole path") from error


def _address(name: str) -> str:
    given = _text(name)
    if given and not given.startswith(("http://", "https://")):
        raise _wrong(name, "should be an address that begins with http:// or https://")
    return given


def _wrong(name: str, wanted: str) -> UsageError:
    return UsageError(f"{name}={os.environ.get(name, '')!r}: {wanted}")
