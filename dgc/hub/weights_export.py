"""A checkpoint of a run as one file to give away: our own format, or one that the authors' code
loads. No torch here.

Own format: FILE.safetensors, and FILE.json with the recipe, the run, the step, its metrics, its
classes and preprocessing, the digest of the weights; all but the digest stand in the header of the
weights too. Released format: torch.save of {epoch, state_dict, best_prec1, dgcctl (the same
record)} with per-head keys and `module.` prefixes, written by a child process.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dgc
from dgc.errors import UsageError
from dgc.hub import filetype
from dgc.hub.cache import now
from dgc.hub.card import METADATA_KEY, checkpoint_facts, weights_file
from dgc.hub.convert import WALL_SECONDS, run_child
from dgc.recipe.load import dump_recipe
from dgc.run.checkpoint_store import (
    MODEL_FILE,
    STATE_FILE,
    checkpoint_folder,
    read_verified,
    step_of,
)
from dgc.run.events import EventKind, live_rows, read_events
from dgc.run.files import atomic_write, read_json, temporary_name
from dgc.run.metrics import EVAL_FIELDS
from dgc.run.paths import RunDir

SCHEMA_VERSION = 1
_COSTS = ("macs_dense", "macs_promised", "macs_executed", "parameters")
_FIGURES = (*(field.name for field in EVAL_FIELDS), "epoch")


def export_own(
    run: RunDir, out: Path, step: str = "last", *, ema: bool = False
) -> tuple[Path, Path]:
    """Write OUT.safetensors and OUT.json (read-only); every digest is checked on the way. Returns
    both paths. `ema`: the averaged weights.

    The record is in the header of the weights too, so that the file by itself knows its network and
    its classes.
    """
    folder = checkpoint_folder(run, step)
    # every digest, also of files that are not exported: a damaged checkpoint is not given away
    files = read_verified(folder)
    target = out if out.suffix == ".safetensors" else out.with_name(out.name + ".safetensors")
    told = _record(run, folder, files, ema=ema)
    name = weights_file(run, files, ema=ema)
    weights = filetype.with_metadata(files[name], {METADATA_KEY: json.dumps(told)}, folder / name)
    record = {
        **told,
        "weights": {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)},
    }
    beside = target.with_suffix(".json")
    _refuse_existing(target, beside)
    target.parent.mkdir(parents=True, exist_ok=True)
    # weights first, then the record that names their digest, as everywhere
    atomic_write(target, weights, point="export")
    atomic_write(beside, (json.dumps(record, indent=2) + "\n").encode(), point="export-record")
    # read-only: an export that changes after it was given away is another one
    for path in (target, beside):
        path.chmod(0o444)
    return target, beside


def _record(run: RunDir, folder: Path, files: Mapping[str, bytes], *, ema: bool) -> dict[str, Any]:
    recipe, card, structure, _ = checkpoint_facts(files, folder, run)
    return {
        "schema_version": SCHEMA_VERSION,
        "dgcctl": dgc.__version__,
        "exported": now(),
        "run": run.id,
        "step": step_of(folder),
        "model": recipe.model.name,
        "recipe_digest": recipe.digest(),
        "recipe": dump_recipe(recipe),
        "metrics": metrics_at(run, step_of(folder)),
        **({"averaged": True} if ema else {}),
        **({"structure": structure} if structure is not None else {}),
        **card.document(),
    }


def metrics_at(run: RunDir, step: int) -> dict[str, Any] | None:
    """Figures of the evaluation after `step`, and what the network costs;
    None where there was no evaluation.
    """
    events = read_events(run) if run.events.exists() else []
    rows = [
        row for row in live_rows(events) if row["kind"] == EventKind.EVAL and row["step"] == step
    ]
    if not rows:
        return None
    # what was measured, without what says where
    figures = {key: rows[-1][key] for key in _FIGURES if rows[-1].get(key) is not None}
    return {**figures, **_costs_at(run, rows[-1], events)}


def _costs_at(run: RunDir, row: Mapping[str, Any], events: list[Any]) -> dict[str, Any]:
    """What the network of an evaluation costs;
    `macs_executed` only where as much was pruned as in metrics.json.
    """
    known = read_json(run.metrics) if run.metrics.exists() else {}
    costs = {key: known[key] for key in _COSTS if key in known}
    last = [row for row in live_rows(events) if row["kind"] == EventKind.EVAL][-1]
    # metrics.json counts the network of the last
    # evaluation; an earlier one may have been pruned less
    if row is not last and _inactive(run, row) != _inactive(run, last):
        costs.pop("macs_executed", None)
    return costs


def _inactive(run: RunDir, row: Mapping[str, Any]) -> list[Any] | None:
    """How many channels of each dynamic layer were off at an evaluation, by its gate map."""
    path = run.gates / f"epoch-{row['epoch']:04d}.json"
    return [layer["n_inactive"] for layer in read_json(path)["layers"]] if path.is_file() else None


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise UsageError(
                f"{path} exists already: give another name, an export is never overwritten"
            )


def export_released(
    run: RunDir, out: Path, step: str = "last", container: str = "legacy", *, ema: bool = False
) -> Path:
    """Write a file that the authors' code loads;
    `container` is `legacy` (torch < 1.6) or `zip`; `ema`: the averaged weights.
    """
    if container not in ("legacy", "zip"):
        raise UsageError(
            f"--container {container}: should be legacy (what torch before 1.6 wrote) or zip"
        )
    folder = checkpoint_folder(run, step)
    files = read_verified(folder)
    if not (network := checkpoint_facts(files, folder, run).recipe.model).is_ours:
        raise UsageError(
            f"the released format is that of dydensenet and dyresnet18, and {run.id} trained"
            f" {network.name}: export it as safetensors"
        )
    _refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(temporary_name(out.name))
    try:
        # by the child alone: this process has no torch
        with tempfile.TemporaryDirectory(prefix="dgcctl-") as scratch:
            weights = Path(scratch, MODEL_FILE)
            weights.write_bytes(files[weights_file(run, files, ema=ema)])
            job = {
                "task": "released",
                "file": str(weights),
                "out": str(temporary),
                "container": container,
            }
            run_child({**job, "facts": _released_facts(run, folder, files, ema)}, out, WALL_SECONDS)
        temporary.chmod(0o444)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _released_facts(
    run: RunDir, folder: Path, files: Mapping[str, bytes], ema: bool
) -> dict[str, Any]:
    """`epoch` and `best_prec1` (precision in per cent) of the exported step, as the authors' code
    stores and reads them, and our own record, which it passes over.
    """
    record = _record(run, folder, files, ema=ema)
    metrics = record["metrics"] or {}
    error = metrics.get("ema_top1_error" if ema else "top1_error")
    # of the checkpoint itself, where it says it: an evaluation may be older
    place = json.loads(files.get(STATE_FILE, b"{}")).get("progress", {}).get("position", {})
    epoch = place.get("epoch", metrics.get("epoch", 0))
    best = 0.0 if error is None else 100.0 - float(error)
    return {"epoch": int(epoch), "best_prec1": best, METADATA_KEY: json.dumps(record)}
