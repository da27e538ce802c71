"""Checkpoints in the released format: key names both ways, strict loading.

Released: one set of keys a head (`headconv_<i>.conv.weight`, `.fc1.weight`, `.fc2.weight`,
`.fc2.bias`), the buffer `_inactive_channels`, `norm` around the BatchNorm of a downsampling path,
and `module.` in front of everything. Ours: the heads stacked in `weight`, `fc1`, `fc2`, `fc2_bias`,
and the buffer `inactive_channels`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgc.errors import ArgumentError, IntegrityError
from dgc.models.table import MODELS, RELEASED, create_model

PARTS = {"conv.weight": "weight", "fc1.weight": "fc1", "fc2.weight": "fc2", "fc2.bias": "fc2_bias"}
HEAD = re.compile(
    r"^(?P<layer>.*\.|)headconv_(?P<head>\d+)\.(?P<part>conv\.weight|fc[12]\.weight|fc2\.bias)$"
)
SHOWN = 5  # keys named in an error


def to_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict with the released key names (without `module.`), heads unstacked."""
    out: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        layer, _, part = key.rpartition(".")
        dot = f"{layer}." if layer else ""
        # what has an fc2_bias beside it is a gated layer; its other parts are told by their names
        if f"{dot}fc2_bias" in state_dict and part in PARTS.values():
            out |= _unstack(dot, part, tensor, state_dict[f"{dot}fc1"].shape[0])
        elif part == "inactive_channels":
            out[f"{dot}_inactive_channels"] = tensor
        else:
            out[re.sub(r"(downsample\.1)\.", r"\1.norm.", key)] = tensor
    return out


def _unstack(dot: str, part: str, tensor: Tensor, heads: int) -> dict[str, Tensor]:
    pieces = tensor.chunk(heads) if part == "weight" else tensor.unbind(0)
    theirs = next(name for name, ours in PARTS.items() if ours == part)
    return {f"{dot}headconv_{i}.{theirs}": piece for i, piece in enumerate(pieces)}


def from_released(
    state_dict: Mapping[str, Tensor], model: nn.Module | None = None
) -> dict[str, Tensor]:
    """A released state dict with our key names, `module.` stripped, heads stacked.

    With `model`, its keys and shapes are compared first: anything missing, extra or misshapen, in
    another precision than float32, or not finite raises IntegrityError, which names the first keys
    and the model that would fit.
    """
    bare = {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}
    if model is not None:
        # in their names and shapes: an error names keys that the user finds in the file
        _require_equal(bare, to_released(model.state_dict()))
    out: dict[str, Tensor] = {}
    stacks: defaultdict[str, dict[int, Tensor]] = defaultdict(dict)
    for key, tensor in bare.items():
        match = HEAD.match(key)
        if match:
            stacks[match["layer"] + PARTS[match["part"]]][int(match["head"])] = tensor
        else:
            out[_own_name(key)] = tensor
    return out | {key: _stack(key, pieces) for key, pieces in stacks.items()}


def _own_name(key: str) -> str:
    return re.sub(r"(downsample\.1)\.norm\.", r"\1.", key).replace(
        "_inactive_channels", "inactive_channels"
    )


def _stack(key: str, pieces: dict[int, Tensor]) -> Tensor:
    # heads 0 to G - 1, each once: a missing one would shift all that follow
    if (
        sorted(pieces) != list(range(len(pieces)))
        or len({piece.shape for piece in pieces.values()}) != 1
    ):
        raise IntegrityError(f"{key}: heads {sorted(pieces)} are not complete, or differ in shape")
    ordered = [pieces[i] for i in range(len(pieces))]
    return torch.cat(ordered) if key.rpartition(".")[2] == "weight" else torch.stack(ordered)


def _require_equal(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Missing, extra and misshapen keys first (another network), then precision and values."""
    problems = [f"missing {key}" for key in wanted if key not in given]
    problems += [f"extra {key}" for key in given if key not in wanted]
    shared = [key for key in wanted if key in given]
    problems += [
        f"{key} is {_shape(given[key])}, must be {_shape(wanted[key])}"
        for key in shared
        if given[key].shape != wanted[key].shape
    ]
    if problems:
        raise IntegrityError(_summary(problems) + _who(given))
    problems = [
        f"{key} is {given[key].dtype}, must be {wanted[key].dtype}"
        for key in shared
        if given[key].dtype != wanted[key].dtype
    ]
    # values are looked at last: on a network that is another one NaN says nothing
    problems += [
        f"{key} holds NaN or Inf"
        for key in shared
        if not problems and not given[key].isfinite().all()
    ]
    if problems:
        raise IntegrityError(_summary(problems))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _summary(problems: list[str]) -> str:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return (
        f"the checkpoint does not fit the model, {len(problems)} keys differ:"
        f" {'; '.join(problems[:SHOWN])}{more}"
    )


def _who(given: Mapping[str, Tensor]) -> str:
    """Which released network the keys and shapes belong to, if any."""
    shapes = {key: tensor.shape for key, tensor in given.items()}
    # on the meta device: shapes alone, in milliseconds
    for name in RELEASED:
        with torch.device("meta"):
            wanted = to_released(MODELS[name].build(**MODELS[name].numbers).state_dict())
        if shapes == {key: tensor.shape for key, tensor in wanted.items()}:
            return f" (the checkpoint is for model {name})"
    return ""


def read_released(file: str | Path) -> dict[str, Tensor]:
    """The `state_dict` of a released checkpoint (zip
    or pre-1.6 container), nothing in it executed.
    """
    try:
        # torch's own list of what a pickle may do; dgc.hub looks into the file before that
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ArgumentError(f"{file}: no such file") from None
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise IntegrityError(f"{file}: not a released checkpoint ({first})") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise IntegrityError(
            f"{file}: holds no 'state_dict' of tensors, so it is no released checkpoint"
        )
    return dict(state)


def load_released(file: str | Path, name: str, **overrides: Any) -> nn.Module:
    """Network `name` (see `list_models`)
    with the weights of a released checkpoint, in evaluation mode.

    Nothing in the file is executed. Raises IntegrityError where a key is missing, extra or
    misshapen.
    """
    model = create_model(name, **overrides)
    try:
        state = from_released(read_released(file), model)
        model.load_state_dict(state, strict=True)
    except IntegrityError as error:
        prefix = "" if str(file) in str(error) else f"{file}: {name}: "
        raise IntegrityError(f"{prefix}{error}") from error
    except RuntimeError as error:
        raise IntegrityError(f"{file}: {name}: {str(error).splitlines()[-1].strip()}") from error
    return model.eval()
