"""The released checkpoints as data: `registry.json` beside this file, read and checked. No torch.

Another registry (for example with a mirror of your own) can be given with DGCCTL_REGISTRY=FILE.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from dgc import settings
from dgc.errors import IntegrityError, UsageError
from dgc.run.names import is_one_component

SCHEMA_VERSION = 1
MIB = 1 << 20
# the published sizes are rounded to 0.1 MiB; the zip container is up to 0.2 MiB larger than the
# older one
_TOLERANCE_MIB = 0.3


@dataclass(frozen=True)
class Link:
    """Where a file lies: host `gdrive` (with a file id), `onedrive` or `https` (with a URL)."""

    host: str
    target: str


@dataclass(frozen=True)
class ImageSteps:
    """What the network expects:
    PIL image -> resize (short side), centre crop, [0, 1], (x - mean) / std.

    `channels` 1: the image is made grey, and given three times.
    """

    resize: int | None
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: int = 3


@dataclass(frozen=True)
class ReleasedCheckpoint:
    """One released checkpoint. Errors in per cent; MACs by the authors' counter; sizes in bytes."""

    name: str
    recipe: str
    classes: str
    file: str
    links: tuple[Link, ...]
    size_mib: float
    sha256: str | None
    licence: str
    preprocessing: ImageSteps
    top1_error: float
    top5_error: float | None
    source: str
    macs: int
    parameters: int
    tensors: int
    layout_sha256: str

    @property
    def size_range(self) -> tuple[int, int]:
        """Bytes that agree with the published size."""
        return int((self.size_mib - _TOLERANCE_MIB) * MIB), int(
            (self.size_mib + _TOLERANCE_MIB) * MIB
        )


def load_registry(path: Path | None = None) -> dict[str, ReleasedCheckpoint]:
    """All entries by name, in the order of the file.
    Raises IntegrityError for a file that cannot be used.
    """
    # a registry of the user's own goes before the shipped one
    chosen = path or settings.registry()
    source = chosen or files("dgc.hub").joinpath("registry.json")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(
                f"schema_version {content['schema_version']}, this program reads {SCHEMA_VERSION}"
            )
        return {name: _entry(name, fields) for name, fields in content["checkpoints"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{source}: not a usable registry of checkpoints ({error!r})"
        ) from error


def _entry(name: str, fields: dict[str, Any]) -> ReleasedCheckpoint:
    # they become paths in the cache: a folder in them would lead out of it
    if not (is_one_component(name) and is_one_component(str(fields["file"]))):
        raise ValueError(
            f"{name!r}, {fields['file']!r}: should be names of files, without a folder"
        )
    published, preprocessing = fields["published"], fields["preprocessing"]
    return ReleasedCheckpoint(
        name=name,
        links=tuple(Link(link["host"], link.get("id") or link["url"]) for link in fields["links"]),
        preprocessing=ImageSteps(
            preprocessing["resize"],
            preprocessing["image_size"],
            tuple(preprocessing["mean"]),
            tuple(preprocessing["std"]),
        ),
        top1_error=published["top1_error"],
        top5_error=published["top5_error"],
        source=published["source"],
        **{key: fields[key] for key in _PLAIN},
    )


_PLAIN = [
    "recipe",
    "classes",
    "file",
    "size_mib",
    "sha256",
    "licence",
    "macs",
    "parameters",
    "tensors",
    "layout_sha256",
]


def find_entry(
    name: str, registry: dict[str, ReleasedCheckpoint] | None = None
) -> ReleasedCheckpoint:
    """The entry of that name. Raises UsageError with the nearest names."""
    known = load_registry() if registry is None else registry
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    raise UsageError(f"no released checkpoint is called {name!r} ({hint}); see `dgcctl ckpt ls`")


def layout_digest(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> str:
    """One number for all (key, dtype, shape) of a released state_dict,
    whatever their order or `module.` prefix.
    """
    lines = [
        # sorted, and without the prefix: files of the same network differ in both
        f"{key.removeprefix('module.')} {dtype} {'x'.join(map(str, shape))}"
        for key, dtype, shape in tensors
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
