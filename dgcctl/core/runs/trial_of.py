"""Of which sweep or search a run is a trial: what sweep.json says, as values of a list."""

from __future__ import annotations

import os
from typing import Any

from dgc.errors import IntegrityError
from dgc.run.files import read_json
from dgc.run.paths import RunDir

FILE = "sweep.json"
_SEARCHES = "searches"  # beside the runs, as dgcctl.core.search has it


def read(run: RunDir) -> dict[str, Any]:
    """{"sweep" or "search": its id, "trial": its number}; {} of other runs, and where the file
    cannot be read.
    """
    if not os.path.lexists(f"{run.path}/{FILE}"):  # as most have none, in a third of the time
        return {}
    try:
        found = read_json(run.file(FILE))
    except (OSError, IntegrityError):
        return {}
    name, trial = found.get("sweep"), found.get("trial")
    if not isinstance(name, str) or not isinstance(trial, int):
        return {}
    # the file is the same of both: where the plan lies tells them apart
    kind = "search" if os.path.lexists(f"{run.path.parent}/{_SEARCHES}/{name}") else "sweep"
    return {kind: name, "trial": trial}
