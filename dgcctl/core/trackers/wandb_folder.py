"""A run as Weights & Biases keeps it offline: FOLDER/wandb/offline-run-*; `wandb sync` uploads it,
which is the user's to do.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
from pathlib import Path
from typing import Any

from dgc.errors import UsageError
from dgc.run.status import State
from dgcctl.core.trackers.outgoing import Outgoing

PROJECT = "dgcctl"  # $WANDB_PROJECT is another


def write(run: Outgoing, folder: Path) -> Path:
    """Write the run offline; an earlier export of the same run is removed. Returns its folder.
    Raises UsageError where wandb is not installed.
    """
    wandb = _library()
    folder.mkdir(parents=True, exist_ok=True)
    run_id = re.sub(r"[/\\#?%:]", "_", run.id)  # what wandb takes; ids that were made here are such
    for old in (folder / "wandb").glob(f"offline-run-*-{glob.escape(run_id)}"):
        shutil.rmtree(old)
    kept = wandb.init(
        dir=str(folder),
        project=os.environ.get("WANDB_PROJECT") or PROJECT,
        id=run_id,
        name=run.id,
        tags=list(run.tags) or None,
        notes="\n\n".join(filter(None, (run.title, run.note))) or None,
        config=dict(run.parameters),
        settings=_settings(wandb),
    )
    place = Path(kept.dir)
    for step, row in _rows(run):
        kept.log(row, step=step)
    kept.log({"report": wandb.Html(run.page, inject=False)}, step=run.last_step)
    (place / "report.html").write_text(run.page, encoding="utf-8")
    kept.save(str(place / "report.html"), base_path=str(place), policy="end")
    kept.summary.update({**run.results, "state": str(run.state), "reason": run.reason})
    kept.finish(exit_code=0 if run.state in (State.DONE, State.RUNNING) else 1)
    return place.parent


def _library() -> Any:
    # nothing of it may reach a network: neither the run nor its own errors
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    try:
        import wandb
    except ImportError:
        raise UsageError("--to wandb needs wandb: pip install 'dgcctl[wandb]'") from None
    return wandb


def _settings(wandb: Any) -> Any:
    """Of this process it keeps nothing: no output, no machine, no code; it did not train."""
    return wandb.Settings(
        mode="offline",
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_save_requirements=False,
    )


def _rows(run: Outgoing) -> list[tuple[int, dict[str, float]]]:
    """All figures of a step as one row, in the order of the steps: wandb goes only forward."""
    found: dict[int, dict[str, float]] = {}
    for point in run.points:
        row = found.setdefault(point.step, {})
        row[point.curve] = point.value
        row["_timestamp"] = point.moment
    return sorted(found.items())
