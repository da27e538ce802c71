"""A released network with its weights, ready to be evaluated: `load_pretrained(name)`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dgc.errors import IntegrityError
from dgc.hub.cache import Cache, hold
from dgc.hub.convert import Converted, convert, existing
from dgc.hub.fetch import Fetched, Options, download
from dgc.hub.registry import Entry, Preprocessing, find_entry
from dgc.models import create_model
from dgc.run.files import clear_leftovers


class Pretrained(NamedTuple):
    """A network in evaluation mode, what its images must go through, and its line of the registry."""

    model: nn.Module
    preprocessing: Preprocessing
    info: Entry


def load_pretrained(
    name: str, cache: Cache | None = None, options: Options | None = None
) -> Pretrained:
    """Download (or find in the cache), check, convert once and load the released network `name`.

    Raises UsageError for an unknown name, NetworkError (6), IntegrityError (4), UnsafeFileError
    (5).
    """
    entry, cache, options = find_entry(name), cache or Cache.default(), options or Options()
    with converted(entry, download(entry, cache, options), cache, options) as result:
        model = create_model(entry.name)
        load_weights(model, result.weights)
    return Pretrained(model.eval(), entry.preprocessing, entry)


@contextmanager
def converted(
    entry: Entry, fetched: Fetched, cache: Cache, options: Options
) -> Iterator[Converted]:
    """The converted weights of a fetched checkpoint; kept in the cache where it can be written."""
    weights = cache.converted(entry.name)
    if found := existing(weights, fetched.sha256):
        yield found
        return
    try:
        with hold(cache.lock(weights.name), options.say):
            clear_leftovers(cache.folder)
            found = existing(weights, fetched.sha256) or _convert(entry, fetched, weights, options)
    except PermissionError:
        with tempfile.TemporaryDirectory(prefix="dgcctl-") as folder:
            yield _convert(entry, fetched, Path(folder, weights.name), options)
        return
    yield found


def _convert(entry: Entry, fetched: Fetched, weights: Path, options: Options) -> Converted:
    result = convert(fetched.path, entry.name, weights, origin=fetched.pin.origin)
    left = "; ".join(result.stripped) or "nothing"
    options.say(f"{entry.name}: converted to {weights.name}; left behind: {left}")
    return result


def load_weights(model: nn.Module, weights: Path) -> None:
    """Load a safetensors file of ours into `model`, strictly. Raises IntegrityError naming the
    first five keys.
    """
    from safetensors.torch import load_file

    from dgc.hub import tensorfile

    header = tensorfile.read_header(weights)
    mine: dict[str, Any] = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = {key: shape for key, (_, shape) in header.tensors.items()}
    wrong = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if wrong:
        told = header.metadata.get("model", "another network")
        raise IntegrityError(
            f"{weights}: {len(wrong)} keys do not fit the model ({', '.join(wrong[:5])}); the file"
            f" is for {told}"
        )
    model.load_state_dict(load_file(weights), strict=True)
