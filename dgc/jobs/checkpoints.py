"""`python -m dgc.jobs.checkpoints verify NAME --json OUT`: is a cached checkpoint what it should
be? Digest, keys and shapes, parameters, MACs: one row each. The part of `dgcctl ckpt` that needs
torch, in a process of its own.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dgc.errors import DgcError
from dgc.hub.cache import Cache
from dgc.hub.fetch import Fetched, FetchOptions, absent, cached
from dgc.hub.registry import ReleasedCheckpoint, find_entry, layout_digest
from dgc.hub.scan import state_dict_of
from dgc.jobs.reply import reply
from dgc.talk import run_program, say


@dataclass(frozen=True)
class Check:
    """One row: what was expected, what was found."""

    name: str
    expected: Any
    found: Any
    passed: bool
    detail: str = ""


def verify(entry: ReleasedCheckpoint, cache: Cache, options: FetchOptions) -> list[dict[str, Any]]:
    """The rows for a checkpoint in the cache.
    Raises NetworkError where it is not there, and what loading raises.
    """
    try:
        fetched = cached(entry, cache)
    except DgcError as error:
        return [asdict(Check("sha256", "as pinned", "another", False, str(error)))]
    if fetched is None:
        raise absent(entry, cache)
    # looked at once more, whatever was said when it was fetched: that is what verify is for
    fetched = replace(fetched, inspection=fetched.inspect())
    return [
        asdict(check)
        for check in [*_file_checks(entry, fetched), *_model_checks(entry, fetched, cache, options)]
    ]


def _file_checks(entry: ReleasedCheckpoint, fetched: Fetched) -> list[Check]:
    tensors = state_dict_of(fetched.inspect())
    layout = layout_digest((key, spec.dtype, spec.shape) for key, spec in tensors.items())
    size = fetched.path.stat().st_size
    known = (
        "known to the registry"
        if entry.sha256
        else f"pinned {fetched.pin.when} from {fetched.pin.origin}"
    )
    agreed = (
        f", given alike by {' and '.join(fetched.pin.confirmed_by)}"
        if fetched.pin.confirmed_by
        else ""
    )
    return [
        Check("sha256", fetched.pin.sha256, fetched.sha256, True, known + agreed),
        _size_check(entry, size, layout == entry.layout_sha256),
        Check("tensors", entry.tensors, len(tensors), len(tensors) == entry.tensors),
        Check("keys and shapes", entry.layout_sha256, layout, layout == entry.layout_sha256),
    ]


def _size_check(entry: ReleasedCheckpoint, size: int, same_weights: bool) -> Check:
    """A file fetched by hand may hold more than the weights (an optimizer); the weights decide
    then.
    """
    least, most = entry.size_range
    fits = least <= size <= most
    more = "" if fits else "; it holds more or less than the published file"
    return Check(
        "size",
        f"{least}..{most}",
        size,
        fits or same_weights,
        f"published as {entry.size_mib} MiB{more}",
    )


def _model_checks(
    entry: ReleasedCheckpoint, fetched: Fetched, cache: Cache, options: FetchOptions
) -> list[Check]:
    # torch: only now, so that a wrong name or a missing file is told at once
    from dgc.hub.load_weights import converted, load_weights
    from dgc.layers.macs import count
    from dgc.models import create_model

    model = create_model(entry.name)
    with converted(entry, fetched, cache, options) as result:
        load_weights(model, result.weights)
    counted = count(model.eval(), entry.preprocessing.image_size)
    return [
        Check("parameters", entry.parameters, counted.params, counted.params == entry.parameters),
        Check(
            "MACs, promised",
            entry.macs,
            counted.promised,
            counted.promised == entry.macs,
            "by the authors' counter",
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.checkpoints")
    parser.add_argument("task", choices=["verify"])
    parser.add_argument("name")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)

    def make() -> dict[str, Any]:
        return {
            "checks": verify(
                find_entry(given.name), Cache.default(), FetchOptions(offline=True, say=say)
            )
        }

    return reply(given.json, make)


if __name__ == "__main__":
    run_program(main)
