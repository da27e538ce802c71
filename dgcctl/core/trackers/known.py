"""Which trackers there are, and what to type to look at what was written for them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dgc.errors import UsageError
from dgcctl.core.trackers import mlflow_store, tensorboard_folder, wandb_folder
from dgcctl.core.trackers.outgoing import Outgoing


@dataclass(frozen=True)
class Tracker:
    """`write(run, folder)` returns what it wrote; `look(folder)` is a command."""

    write: Callable[[Outgoing, Path], Path]
    look: Callable[[Path], str]


def _mlflow(folder: Path) -> str:
    return f"mlflow ui --backend-store-uri {shlex.quote(mlflow_store.address(folder))}"


TRACKERS: Mapping[str, Tracker] = {
    "tensorboard": Tracker(
        tensorboard_folder.write, lambda folder: f"tensorboard --logdir {shlex.quote(str(folder))}"
    ),
    "mlflow": Tracker(mlflow_store.write, _mlflow),
    "wandb": Tracker(
        wandb_folder.write,
        lambda folder: f"wandb sync --sync-all (in {shlex.quote(str(folder))}; it uploads)",
    ),
}


def tracker(name: str) -> Tracker:
    """Raises UsageError for a name that is none."""
    if name not in TRACKERS:
        raise UsageError(f"--to {name}: should be {', '.join(TRACKERS)}")
    return TRACKERS[name]
