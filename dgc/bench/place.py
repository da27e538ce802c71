"""Where a program that works for minutes will write: asked before it starts, not after."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dgc.errors import UsageError


def writable(path: Path) -> Path:
    """`path`, a file to be written, once its folder is there and takes files. Raises UsageError."""
    try:
        if path.is_dir():
            raise UsageError(f"{path} is a folder: name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") if path.exists() else tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
        ) from error
    return path
