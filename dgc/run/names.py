"""Names that become part of a path: of sweeps, runs, released files. No torch."""

from __future__ import annotations

import re

from dgc.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# a name that commands read in another way would never be found
_MEANS_SOMETHING = frozenset(("latest",))


def checked_name(name: str, what: str) -> str:
    """`name`, if it can be the name of a folder everywhere. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{what} {name!r}: should be a name of at most 64 letters, digits, '_', '.' and '-', "
            "beginning with a letter or digit: it becomes a folder's name"
        )
    if name in _MEANS_SOMETHING:
        raise UsageError(f"{what} {name!r}: means the newest one: give another name")
    return name


def is_one_component(name: str) -> bool:
    """Whether a name that comes from a file stays in the folder that it is joined to."""
    return bool(name) and name not in (".", "..") and not any(c in "/\\\0" for c in name)
