"""`train --init RUN|FILE`, `--teacher RUN|FILE`: weights to start from or to learn from, as an
override of the recipe.
"""

from __future__ import annotations

import json
from pathlib import Path

from dgc.errors import DgcError, UsageError
from dgc.run.checkpoint_store import MODEL_FILE, checkpoint_folder
from dgcctl.core.runs import find


def overrides(init: str | None, teacher: str | None, runs: Path) -> list[str]:
    """`KEY=FILE` of each that was given: of a run's last checkpoint, or of a file. Raises
    UsageError where it is neither.
    """
    started = _override(init, runs, "model.init", "--init")
    return started + _override(teacher, runs, "train.teacher", "--teacher")


def _override(given: str | None, runs: Path, key: str, option: str) -> list[str]:
    if given is None:
        return []
    # a file goes before a run of that name: it is what was typed
    file = Path(given).expanduser()
    if not file.is_file():
        file = _of_run(given, runs, option)
    # as JSON: a path may hold what YAML would read as something else
    return [f"{key}={json.dumps(str(file.absolute()))}"]


def _of_run(given: str, runs: Path, option: str) -> Path:
    try:
        run = find.find_run(given, runs)
    except DgcError as error:
        raise UsageError(f"{option} {given}: is no file and no run: {error}") from error
    return checkpoint_folder(run) / MODEL_FILE
