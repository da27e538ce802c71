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
    return named(run, told(run))


def told(run: RunDir) -> tuple[str, int] | None:
    """The id of a sweep or search, and the number of the trial, as its file has them."""
    if not os.path.lexists(f"{run.path}/{FILE}"):  # as most have none, in a third of the time
        return None
    try:
        found = read_json(run.file(FILE))
    except (OSError, IntegrityError):
        return None
    name, trial = found.get("sweep"), found.get("trial")
    return (name, trial) if isinstance(name, str) and isinstance(trial, int) else None


def named(run: RunDir, found: tuple[str, int] | None) -> dict[str, Any]:
    """What `read` gives, of what its file told."""
    if found is None:
        return {}
    name, trial = found
    # the file is the same of both: where the plan lies tells them apart
    kind = "search" if os.path.lexists(f"{run.path.parent}/{_SEARCHES}/{name}") else "sweep"
    return {kind: name, "trial": trial}
