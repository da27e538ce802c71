"""`train --init RUN|FILE`: the weights to start from, as an override of the recipe."""

from __future__ import annotations

import json
from pathlib import Path

from dgc.errors import DgcError, UsageError
from dgc.run.checkpoint_store import MODEL_FILE, checkpoint_folder
from dgcctl.core.runs import listing


def override(given: str | None, runs: Path) -> list[str]:
    """[`model.init=FILE`] of a run's last checkpoint, or of a file; []: none was given. Raises
    UsageError where it is neither.
    """
    if given is None:
        return []
    file = Path(given).expanduser()
    if not file.is_file():
        file = _of_run(given, runs)
    return [f"model.init={json.dumps(str(file.absolute()))}"]


def _of_run(given: str, runs: Path) -> Path:
    try:
        run = listing.find_run(given, runs)
    except DgcError as error:
        raise UsageError(f"--init {given}: is no file and no run: {error}") from error
    return checkpoint_folder(run) / MODEL_FILE
