"""What a script saves, and how it goes on: a network's weights, what it is made of, and any states
beside them (an optimizer's, a schedule's, counters). Tensors lie in safetensors and the rest in
JSON, so that nothing in a checkpoint is ever executed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgc.errors import ArgumentError, DgcError, IntegrityError
from dgc.run import checkpoint_store, plain_state
from dgc.run.checkpoint_store import MODEL_FILE, STRUCTURE_FILE
from dgc.run.files import read_json
from dgc.run.paths import RunDir
from dgc.run.status import State, inferred_state, read_status

SCRIPT_FILE = "script.json"  # the states without their tensors
SCRIPT_TENSORS = "script.safetensors"
SCHEMA_VERSION = 1
_UNFINISHED = frozenset({State.STOPPED, State.FAILED, State.DIED})


@dataclass(frozen=True)
class Saved:
    """The newest checkpoint of a script's run. `weights` is a state dict, on the CPU; `state` what
    was given as `state`, {} where nothing was. `passed_over`: why newer ones were not taken.
    """

    step: int
    epoch: int
    weights: dict[str, Any]
    state: dict[str, Any]
    passed_over: list[str] = field(default_factory=list)


def encode(model: Any, state: Mapping[str, Any] | None, epoch: int) -> dict[str, bytes]:
    """The files of a checkpoint. Raises ArgumentError for a state that is no plain data."""
    import safetensors.torch

    tensors = _tensors(model)
    files = {
        # copies: safetensors refuses two names of one storage (tied weights)
        MODEL_FILE: safetensors.torch.save(
            {key: plain_state.copy(value, key) for key, value in tensors.items()}
        )
    }
    if not isinstance(model, Mapping):
        import dgc

        # which layers were converted: names and shapes alone do not say it
        files[STRUCTURE_FILE] = json.dumps(dgc.structure(model), indent=2).encode()
    packed, beside = plain_state.pack(state)
    document = {"schema_version": SCHEMA_VERSION, "epoch": epoch, "state": packed}
    files[SCRIPT_FILE] = json.dumps(document).encode()
    if beside:
        files[SCRIPT_TENSORS] = safetensors.torch.save(beside)
    return files


def _tensors(model: Any) -> Mapping[str, Any]:
    """The weights of a module or of a mapping. ArgumentError for anything else."""
    if not isinstance(model, Mapping) and not hasattr(model, "state_dict"):
        raise ArgumentError(
            f"checkpoint of a {type(model).__name__}: give a torch module, or a mapping of tensors"
        )
    tensors: Mapping[str, Any] = model if isinstance(model, Mapping) else model.state_dict()
    for key, value in tensors.items():
        if not isinstance(key, str) or not hasattr(value, "detach"):
            raise ArgumentError(
                f"checkpoint: {key!r} is a {type(value).__name__}, and weights are tensors by"
                " name: what else a script needs to go on is its `state`"
            )
    return tensors


def require_later(run: RunDir, step: int) -> None:
    """Raise ArgumentError where a checkpoint of a later step stands: a script that is started again
    goes on from the one with the largest step.
    """
    standing = checkpoint_store.list_checkpoints(run)
    if standing and standing[-1].step > step:
        raise ArgumentError(
            f"checkpoint of step {step}: one of step {standing[-1].step} is saved already, and"
            " steps do not go back"
        )


def code_changed(run: RunDir, facts_into: Callable[[RunDir], Mapping[str, Any]]) -> bool:
    """Whether the code is another than the run's record has; `facts_into` writes what there is now
    into a folder.
    """
    try:
        before = read_json(run.git)
        with tempfile.TemporaryDirectory() as folder:
            now = facts_into(RunDir(Path(folder)))
            scripts = [place.file("script.py") for place in (run, RunDir(Path(folder)))]
            texts = [script.read_bytes() if script.is_file() else b"" for script in scripts]
    except (OSError, DgcError):  # of a record that cannot be read nothing can be said
        return False
    keys = ("commit", "patch_sha256", "untracked")
    return texts[0] != texts[1] or any(before.get(key) != now.get(key) for key in keys)


def saved(run: RunDir) -> Saved | None:
    """The newest whole checkpoint; None where there is none. Raises IntegrityError where all are
    damaged.
    """
    try:
        found = checkpoint_store.newest_valid(run)
    except IntegrityError as error:
        raise IntegrityError(f"{error}; without resume=True a new run begins") from error
    if found is None and run.last.exists():
        raise IntegrityError(
            f"{run.checkpoints}: its checkpoints are gone ({run.last.name} names one): put them"
            " back; without resume=True a new run begins"
        )
    if found is None:
        return None
    import safetensors.torch

    checkpoint, files, passed_over = found
    try:
        document = json.loads(files.get(SCRIPT_FILE, b'{"state": {"mapping": []}}'))
        beside = safetensors.torch.load(files[SCRIPT_TENSORS]) if SCRIPT_TENSORS in files else {}
        state = plain_state.unpack(document["state"], beside)
        epoch = int(document.get("epoch", 0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{checkpoint.path}/{SCRIPT_FILE}: is no state of a script ({error!r})"
        ) from error
    weights = safetensors.torch.load(files[MODEL_FILE])
    return Saved(checkpoint.step, epoch, weights, state, passed_over)


def unfinished(folder: Path, document: Mapping[str, Any]) -> RunDir | None:
    """The newest run in `folder` that stopped, failed or died and says of itself what `document`
    says: its name, its seed, its config.
    """
    for run in _runs(folder):
        try:
            told = read_json(run.config)
            status = read_status(run)
        # of a recipe, not to be read, or being made just now: none to go on with
        except (OSError, DgcError, TypeError, ValueError):
            continue
        same = all(told.get(key) == value for key, value in document.items())
        if same and inferred_state(status) in _UNFINISHED:
            return run
    return None


def _runs(folder: Path) -> Iterator[RunDir]:
    try:
        names = sorted(os.listdir(folder), reverse=True)  # they begin with their time
    except OSError:
        return
    yield from (RunDir(folder / name) for name in names if not name.startswith("."))
