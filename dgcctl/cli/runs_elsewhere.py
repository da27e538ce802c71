"""`dgcctl runs export --to tensorboard | mlflow | wandb`: runs for other programs' eyes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dgc.errors import UsageError
from dgc.run.paths import RunDir
from dgcctl.cli._ui import diagnostics, output
from dgcctl.core.trackers.known import tracker
from dgcctl.core.trackers.outgoing import outgoing


def hand_out(runs: Sequence[RunDir], to: str, folder: Path, *, json: bool) -> None:
    """Write each run into the folder, as that tracker keeps it. Raises UsageError for an unknown
    tracker, one that is not installed, or a folder that is a file.
    """
    wanted = tracker(to)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; --to {to} writes into a folder: name one")
    rows = []
    for run in runs:
        leaving = outgoing(run)
        place = wanted.write(leaving, folder)
        rows.append(
            {
                "run": run.id,
                "to": to,
                "target": place,
                "figures": len(leaving.points),
                "parameters": len(leaving.parameters),
                "results": leaving.results,
            }
        )
        if not json:
            output.line(str(place))
            diagnostics.note(
                f"run {run.id}: {len(leaving.points)} figures, {len(leaving.parameters)} parameters"
            )
    if json:
        output.document(runs=rows)
    diagnostics.note(f"look at it: {wanted.look(folder)}")
