"""What the bytes of a checkpoint mean: the whole state of a training, and back.
dgc.run.checkpoint_store writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import safetensors.torch
from torch import Tensor, nn

from dgc.errors import IntegrityError
from dgc.run.checkpoint_store import EMA_FILE, MODEL_FILE, OPTIM_FILE, STATE_FILE
from dgc.train.optimizers import State

MODEL, OPTIM, STATE = MODEL_FILE, OPTIM_FILE, STATE_FILE


@dataclass
class Position:
    """How far a run is. `batch` counts finished batches of `epoch`; an epoch is closed (evaluated,
    its rows written) when `epoch` has moved on and `batch` is 0 again.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass
class Progress:
    """All of a run's state that is not a tensor; one JSON document. Identical on every rank."""

    position: Position = field(default_factory=Position)
    epoch_sums: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    last_eval: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def encode(
    model: nn.Module,
    optimizer: State,
    progress: Progress,
    extra: Mapping[str, Any],
    averaged: Mapping[str, Tensor] | None = None,
) -> dict[str, bytes]:
    """Files of a checkpoint; one more where there are `averaged` weights.

    `optimizer` is its state, by kind and name of parameter; `extra` (JSON values) holds random
    states, scaler and what the run stands on.
    """
    state = {"progress": asdict(progress), **extra}
    return {
        # on the CPU and contiguous, so that it loads on any device and in any memory format
        MODEL: safetensors.torch.save(_portable(model.state_dict())),
        # by name: an order of parameters would tie checkpoints to the code that made them
        OPTIM: safetensors.torch.save(_portable(_named(optimizer))),
        STATE: orjson.dumps(state, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS),
        **({} if averaged is None else {EMA_FILE: safetensors.torch.save(_portable(averaged))}),
    }


def decode_state(files: Mapping[str, bytes]) -> tuple[Progress, dict[str, Any]]:
    """Progress and the extra values of a checkpoint."""
    # what is left is `extra`; older checkpoints have fewer keys there
    state = orjson.loads(files[STATE])
    plain = state.pop("progress")
    return Progress(**{**plain, "position": Position(**plain["position"])}), state


def restore(files: Mapping[str, bytes], model: nn.Module, optimizer: State, origin: str) -> None:
    """Put weights, buffers and the optimizer's state back.
    Raises IntegrityError where they do not fit this model.
    """
    load_model(model, safetensors.torch.load(files[MODEL]), origin)
    saved = safetensors.torch.load(files[OPTIM])
    expected = _named(optimizer)
    _check_fit(expected, saved, f"{origin}/{OPTIM}")
    # in place: the optimizer keeps these very tensors
    for name, value in expected.items():
        value.copy_(saved[name])


def _named(optimizer: State) -> dict[str, Tensor]:
    return {f"{kind}/{name}": t for kind, values in optimizer.items() for name, t in values.items()}


def averaged_weights(
    files: Mapping[str, bytes], expected: Mapping[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint. Raises IntegrityError where it has none, or others."""
    if EMA_FILE not in files:
        raise IntegrityError(f"{origin}: has no {EMA_FILE}, which train.ema_decay needs")
    found = safetensors.torch.load(files[EMA_FILE])
    _check_fit(expected, found, f"{origin}/{EMA_FILE}")
    return found


def load_model(model: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Strictly: every key, no other, every shape."""
    _check_fit(model.state_dict(), tensors, origin)
    model.load_state_dict(dict(tensors), strict=True)


def _check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], origin: str) -> None:
    # all of them at once: one message a wrong recipe, not one a key
    problems = [
        *(f"{key} is missing" for key in expected.keys() - found.keys()),
        *(f"{key} is unknown" for key in found.keys() - expected.keys()),
        *(
            f"{key} has shape {list(found[key].shape)}, expected {list(value.shape)}"
            for key, value in expected.items()
            if key in found and found[key].shape != value.shape
        ),
    ]
    if problems:
        raise IntegrityError(
            f"{origin}: does not fit the recipe's model: {_listed(sorted(problems))}"
        )


def _listed(items: list[str], shown: int = 5) -> str:
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return f"{len(items)} problems: " * (len(items) > 1) + "; ".join(items[:shown]) + more


def _portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
