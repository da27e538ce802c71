"""The weights that a training starts from (`model.init`): a file, or a checkpoint of a run. Never
an address, and nothing in the file is executed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgc.errors import DataError, IntegrityError, UnsafeFileError, UsageError
from dgc.hub import filetype
from dgc.hub.card import METADATA_KEY
from dgc.hub.scan import inspect
from dgc.recipe.load import Recipe
from dgc.run.checkpoint_store import EMA_FILE, MODEL_FILE, STRUCTURE_FILE
from dgc.run.files import is_file, sha256_of

SHOWN = 5
_OF_CHECKPOINTS = {Path(name).stem for name in (MODEL_FILE, EMA_FILE)}
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Start:
    """`structure` where the weights are
    of a converted network (`layers` of it), `sha256` of the file; `key`: what names the file.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    structure: Mapping[str, Any] = field(default_factory=dict)
    key: str = "model.init"

    @property
    def named(self) -> str:
        return f"{self.key} = {self.path}" if self.key else str(self.path)

    @property
    def layers(self) -> Mapping[str, Any]:
        layers = self.structure.get("layers")
        return layers if isinstance(layers, Mapping) else {}

    def usual(self, key: str) -> Any:
        """The number that most converted layers have."""
        return Counter(layer.get(key) for layer in self.layers.values()).most_common(1)[0][0]


def require_file(recipe: Recipe) -> Path:
    """The file of `model.init`. Raises DataError (3) where it is not there."""
    given = Path(str(recipe.model.init)).expanduser()
    if not is_file(given):
        raise DataError(f"model.init = {given}: no such file")
    return given


def read(recipe: Recipe) -> Start:
    """The file of `model.init`, its digest checked against the recipe's.

    Raises DataError (3) where it is not there, IntegrityError (4) where it is another one or is
    damaged, UnsafeFileError (5) where reading it would run code.
    """
    given = require_file(recipe)
    where = f"model.init = {given}"
    found = sha256_of(given)
    wanted = recipe.model.init_sha256
    if wanted is not None and found != wanted:
        raise IntegrityError(
            f"{where}: SHA-256 was {wanted[:12]}, is {found[:12]}: these are other weights than the"
            " recipe was made for"
        )
    return Start(given, found, tensors(given), told_structure(given))


def unnamed(path: Path, key: str = "") -> Start:
    """Weights that do not say which network they are of; `key` names the file in what is said."""
    return Start(path, sha256_of(path), tensors(path), told_structure(path), key)


def tensors(path: Path) -> dict[str, Tensor]:
    """All weights of a safetensors file, or of one that torch.save wrote (weights only)."""
    if filetype.sniff(filetype.read_head(path)) == filetype.SAFETENSORS:
        from safetensors.torch import load_file

        # for its check alone: a header that lies is refused before the library reads it
        filetype.read_header(path)
        return _bare(load_file(path))
    # first without running anything, then by torch, weights only: two walls
    inspect(path)
    try:
        # an open file: by a path PyTorch goes by the name's ending
        with path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsafeFileError(f"refused: {path}: holds more than weights ({first})") from error
    # what training scripts wrap a state dict in
    for key in ("state_dict", "model", "model_state_dict", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise IntegrityError(f"{path}: holds a {type(content).__name__}, not a state dict")
    odd = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise IntegrityError(
            f"{path}: {len(odd)} entries are no tensors ({', '.join(odd[:SHOWN])}): save"
            " model.state_dict() alone, or under the name state_dict"
        )
    return _bare(content)


def _bare(content: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """Without the prefix that DataParallel or torch.compile put before every key."""
    # one after the other: a compiled network in DataParallel has both
    named = {str(key): value for key, value in content.items()}
    for prefix in _PREFIXES:
        if named and all(key.startswith(prefix) for key in named):
            named = {key.removeprefix(prefix): value for key, value in named.items()}
    return named


def told_structure(path: Path) -> Mapping[str, Any]:
    """The structure beside a checkpoint's weights, or in the header of an export; {}: none."""
    beside = path.with_name(STRUCTURE_FILE)
    # a checkpoint's structure is a file beside it; an export carries it in its header
    if path.stem in _OF_CHECKPOINTS and beside.is_file():
        return _decoded(beside.read_text(encoding="utf-8"), str(beside))
    if filetype.sniff(filetype.read_head(path)) != filetype.SAFETENSORS:
        return {}
    text = filetype.read_header(path).metadata.get(METADATA_KEY)
    record = _decoded(text, f"{path}: its header") if text else {}
    told = record.get("structure")
    return told if isinstance(told, Mapping) else {}


def _decoded(text: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise IntegrityError(f"{where}: cannot be read ({error})") from error
    if not isinstance(found, Mapping):
        raise IntegrityError(f"{where}: is no mapping")
    return found


def load(model: nn.Module, start: Start, reset: Sequence[str]) -> None:
    """Put the weights into the network.
    All must fit but what `reset` names: that keeps its fresh values.

    Raises IntegrityError that names keys which are missing, unknown or of another shape, UsageError
    for a pattern of `reset` that means nothing.
    """
    wanted = model.state_dict()
    for pattern in reset:
        if not any(fnmatchcase(key, pattern) for key in wanted):
            raise UsageError(
                f"model.reset: {pattern!r} matches nothing; the last keys are"
                f" {', '.join(list(wanted)[-3:])}"
            )

    def free(key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in reset)

    # what is to start afresh is not even looked at: it may have any shape
    given = {key: value for key, value in _held(start.tensors, wanted).items() if not free(key)}
    # counts of batches: older files lack them, and only a cumulative mean would need them
    bookkeeping = ("num_batches_tracked",)
    problems = [
        *(f"{key} is missing" for key in wanted if key not in given and not free(key)
          and not key.endswith(bookkeeping)),
        *(f"{key} is unknown" for key in given if key not in wanted),
        *(f"{key} has shape {list(given[key].shape)}, expected {list(value.shape)}"
          for key, value in wanted.items() if key in given and given[key].shape != value.shape),
    ]  # fmt: skip
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise IntegrityError(
            f"{start.named}: does not fit the network: {'; '.join(problems[:SHOWN])}{more}"
            f"{_hint(start, given, wanted)}"
        )
    model.load_state_dict(given, strict=False)


def _held(tensors: Mapping[str, Tensor], wanted: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Without the one name under which a training module holds the network (Lightning's
    `self.model`: `model.` before every key), where the network itself knows no such name.
    """
    name = next(iter(tensors), "").partition(".")[0] + "."
    one_name = all(key.startswith(name) for key in tensors)
    if not one_name or any(key.startswith(name) for key in wanted):
        return tensors
    bare = {key.removeprefix(name): value for key, value in tensors.items()}
    # weights of quite another network are told of by their own names
    return bare if bare.keys() & wanted.keys() else tensors


def _hint(start: Start, given: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What is likely the matter with weights that do not fit."""
    # what a layer of ours has and no layer of torch's
    of_ours = [key for key in given if key.endswith(".heads_weight")]
    if of_ours and not any(key.endswith(".heads_weight") for key in wanted):
        return (
            "; these are the weights of a converted network, and nothing says how it was converted:"
            f" put {STRUCTURE_FILE} (dgc.structure) beside a file called {MODEL_FILE}, or save it"
            " by run.checkpoint"
        )
    return "; what may differ stands in model.reset" if start.key == "model.init" else ""
