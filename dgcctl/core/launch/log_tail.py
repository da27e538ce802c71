"""The last lines of a training's text log: what it said before it ended."""

from __future__ import annotations

from pathlib import Path

from dgc.run.files import open_regular


def log_lines(path: Path, last: int) -> list[str]:
    """The last lines of a text log, at most 1 MiB of it; empty where there is none. Raises
    IntegrityError (no file).
    """
    try:
        with open_regular(path) as file:
            file.seek(0, 2)
            # the end alone: a log of days may have gigabytes
            file.seek(max(0, file.tell() - (1 << 20)))
            data = file.read(1 << 20)
    except OSError:
        return []
    return data.decode("utf-8", errors="replace").splitlines()[-last:] if last else []
