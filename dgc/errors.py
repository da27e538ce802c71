"""The exceptions a user can meet, one exit code each.

    DgcError                      1   the work failed
    ├── UsageError                2   wrong command line or API argument
    │   ├── ArgumentError         2   a Python argument out of range; also a ValueError
    │   └── RecipeError           2   a recipe that cannot be used (file:line:key in the message)
    ├── DataError                 3   data missing or bad
    ├── IntegrityError            4   digest, shape or record does not match
    ├── UnsafeFileError           5   a file that would execute code, or write outside its folder
    ├── NetworkError              6   nothing could be fetched
    ├── ResourceError             7   disk, memory
    ├── LockedError               8   the run belongs to another process
    ├── DivergedError             9   NaN or Inf
    ├── RankError                10   a rank died
    ├── TargetMissedError        11   finished, but the number misses its target
    ├── PreemptedError           75   saved and stopped on request of the scheduler
    ├── InterruptedRunError     130   Ctrl-C: saved and stopped
    └── TerminatedError         143   SIGTERM before anything could be saved

A message is one line: what was given, what is allowed, what to do, and where.
"""

from __future__ import annotations

import enum
import errno
import os
from typing import ClassVar


class ExitCode(enum.IntEnum):
    """Process exit codes of every command (documented in the README)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DATA = 3
    INTEGRITY = 4
    UNSAFE = 5
    NETWORK = 6
    RESOURCES = 7
    LOCKED = 8
    DIVERGED = 9
    RANK_DIED = 10
    TARGET_MISSED = 11
    PREEMPTED = 75
    INTERRUPTED = 130
    TERMINATED = 143


class DgcError(Exception):
    """Base of every error that is shown to a user as one line."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class UsageError(DgcError):
    exit_code = ExitCode.USAGE


class ArgumentError(UsageError, ValueError):
    """A bad argument of a public function or layer; Python callers may catch it as a ValueError."""


class RecipeError(UsageError):
    """A recipe that cannot be used. `problems` holds one line each,
    all of them found in one pass.
    """

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(DgcError):
    exit_code = ExitCode.DATA


class IntegrityError(DgcError):
    exit_code = ExitCode.INTEGRITY


class UnsafeFileError(DgcError):
    exit_code = ExitCode.UNSAFE


class NetworkError(DgcError):
    exit_code = ExitCode.NETWORK


class ResourceError(DgcError):
    exit_code = ExitCode.RESOURCES


class LockedError(DgcError):
    exit_code = ExitCode.LOCKED


class DivergedError(DgcError):
    exit_code = ExitCode.DIVERGED


class RankError(DgcError):
    exit_code = ExitCode.RANK_DIED


class TargetMissedError(DgcError):
    exit_code = ExitCode.TARGET_MISSED


class PreemptedError(DgcError):
    exit_code = ExitCode.PREEMPTED


class InterruptedRunError(DgcError):
    exit_code = ExitCode.INTERRUPTED


class TerminatedError(DgcError):
    exit_code = ExitCode.TERMINATED


class OlderNameWarning(FutureWarning):
    """A name of before, which is still understood:
    its message says what to write instead, and until when.
    """


def older_name(old: str, new: str) -> str:
    """What such a warning says. The older name goes with the release after the next."""
    return f"{old} is the older name of {new}: write that; from dgcctl 0.3 on it is unknown"


# What a wrong path gives; whatever else a system refuses is a matter of disks, rights and memory.
_WRONG_PATH = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY),
}
_ADVICE = {
    errno.EACCES: ": check its owner and rights",
    errno.EPERM: ": check its owner and rights",
    errno.EROFS: ": name another folder",
    errno.ENOSPC: ": free some space, or name another folder",
    errno.EDQUOT: ": free some space, or name another folder",
    errno.EFBIG: ": this file may grow no larger (ulimit -f)",
    errno.ENOENT: ": check the path",
}


def system_error(error: OSError) -> DgcError:
    """What the system refused, as a user meets it: where, why, and what can be done about it."""
    why = (error.strerror or str(error)).lower()
    if why.startswith("no usable temporary directory"):
        return ResourceError(f"{why}: free some space, or name a folder with TMPDIR")
    path = error.filename
    what = os.fsdecode(path) if isinstance(path, str | bytes) else "the system refused"
    wrong_path = error.errno in _WRONG_PATH and path is not None
    kind = UsageError if wrong_path else ResourceError
    return kind(f"{what}: {why}{_ADVICE.get(error.errno or 0, '')}")


def error_of(code: int, text: str) -> DgcError:
    """What a process that ended with `code` would have raised:
    the most general class that has this code.
    """
    # breadth first: the most general class of a code comes before its children
    kinds: list[type[DgcError]] = [DgcError]
    for kind in kinds:
        if kind.exit_code == code:
            # in one line: it came from a log, which may have put a break into it
            return kind(" ".join(text.split("\n")))
        kinds += kind.__subclasses__()
    return DgcError(" ".join(text.split("\n")))
