"""Where a command will write: looked at before the work, which may take minutes."""

from __future__ import annotations

import os
from pathlib import Path

from dgc.errors import ResourceError, UsageError


def check_target(option: str, path: Path | None) -> None:
    """Refuse a file that cannot be written. Raises UsageError or ResourceError; None is no file."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder: name a file in it")
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}: make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ResourceError(
            f"{option} {path}: cannot be written there (permission denied): name another file"
        )
