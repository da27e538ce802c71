"""A checkpoint of a run as one file to give away: our own format, or one that the authors' code loads. No torch here.

Own format: FILE.safetensors, and FILE.json with the recipe, the run, the step, its metrics, the digest of the weights.
Released format: torch.save of {epoch, state_dict, best_prec1} with per-head keys and `module.` prefixes, written by a
child process.
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
from dgc.checkpoints import list_checkpoints, read_verified
from dgc.errors import IntegrityError, UsageError
from dgc.fs import atomic_write, temporary_name
from dgc.hub.convert import WALL_SECONDS, run_child
from dgc.hub.lock import now
from dgc.recipe import Recipe, load_recipe, parse_recipe
from dgc.records import RunDir, read_json

SCHEMA_VERSION = 1
MODEL_FILE = "model.safetensors"


def checkpoint_folder(run: RunDir, step: str = "best") -> Path:
    """The folder of a checkpoint by `best`, `last` or a step number. Raises UsageError naming those there are."""
    standing = {str(found.step): found.path for found in list_checkpoints(run) if not found.superseded}
    if step in ("best", "last"):
        pointer = run.best if step == "best" and run.best.exists() else run.last
        if pointer.exists():
            return run.path / str(read_json(pointer)["path"])
    elif step in standing:
        return standing[step]
    known = f"there are best, last, {', '.join(standing)}" if standing else "it has none yet"
    raise UsageError(f"run {run.id} has no checkpoint {step}: {known}")


def export_own(run: RunDir, out: Path, step: str = "best") -> tuple[Path, Path]:
    """Write OUT.safetensors and OUT.json (read-only); every digest is checked on the way. Returns both paths."""
    folder = checkpoint_folder(run, step)
    weights = read_verified(folder)[MODEL_FILE]
    target = out if out.suffix == ".safetensors" else out.with_name(out.name + ".safetensors")
    record = {**_record(run, folder), "weights": {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights)}}
    beside = target.with_suffix(".json")
    _refuse_existing(target, beside)
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, weights, point="export")
    atomic_write(beside, (json.dumps(record, indent=2) + "\n").encode(), point="export-record")
    for path in (target, beside):
        path.chmod(0o444)
    return target, beside


def _record(run: RunDir, folder: Path) -> dict[str, Any]:
    recipe = load_recipe(run.recipe)
    return {
        "schema_version": SCHEMA_VERSION,
        "dgcctl": dgc.__version__,
        "exported": now(),
        "run": run.id,
        "step": int(folder.name.split("-")[1].split(".")[0]),
        "model": recipe.model.name,
        "recipe_digest": recipe.digest(),
        "recipe": run.recipe.read_text(encoding="utf-8"),
        "metrics": read_json(run.metrics) if run.metrics.exists() else None,
    }


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} exists already: give another name, an export is never overwritten")


def export_released(run: RunDir, out: Path, step: str = "best", container: str = "legacy") -> Path:
    """Write a file that the authors' code loads; `container` is `legacy` (torch < 1.6) or `zip`."""
    if container not in ("legacy", "zip"):
        raise UsageError(f"--container {container}: should be legacy (what torch before 1.6 wrote) or zip")
    folder = checkpoint_folder(run, step)
    files = read_verified(folder)
    _refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(temporary_name(out.name))
    try:
        with tempfile.TemporaryDirectory(prefix="dgcctl-") as scratch:
            weights = Path(scratch, MODEL_FILE)
            weights.write_bytes(files[MODEL_FILE])
            job = {"task": "released", "file": str(weights), "out": str(temporary), "container": container}
            run_child({**job, "facts": _released_facts(run)}, out, WALL_SECONDS)
        temporary.chmod(0o444)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _released_facts(run: RunDir) -> dict[str, Any]:
    """`epoch` and `best_prec1` (precision in per cent), as the authors' code stores and reads them."""
    metrics: Mapping[str, Any] = read_json(run.metrics) if run.metrics.exists() else {}
    error = metrics.get("top1_error")
    return {"epoch": int(metrics.get("epoch") or 0), "best_prec1": 0.0 if error is None else 100.0 - float(error)}


def record_beside(weights: Path) -> tuple[Recipe, dict[str, Any]] | None:
    """Recipe and record of an exported file, its digest checked; None where no record lies beside it."""
    beside = weights.with_suffix(".json")
    if not beside.is_file():
        return None
    record = read_json(beside)
    try:
        recipe, told = parse_recipe(record["recipe"], str(beside)), record["weights"]["sha256"]
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"{beside}: is no record of an export ({error!r} is missing)") from error
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != told:
        raise IntegrityError(f"{weights}: sha256 {found}, but {beside.name} says {told}: one of them was changed")
    return recipe, record
