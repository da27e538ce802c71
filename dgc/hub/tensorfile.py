"""The header of a safetensors file, read and checked without reading a tensor. No torch.

The format: 8 bytes little-endian length N, N bytes of JSON {name: {dtype, shape, data_offsets}},
then the numbers, without gaps. A header that lies (1 TB tensor, overlapping offsets, negative
shape, a million names) is refused here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgc.errors import IntegrityError
from dgc.hub import filetype

MAX_HEADER = 2 << 20  # the largest of ours needs 0.1 MiB
MAX_TENSORS = 20_000
_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


@dataclass(frozen=True)
class Header:
    """Names with (dtype, shape), and the free texts of `__metadata__`."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Check and return the header. Raises IntegrityError naming the file and what is wrong with it."""
    head = filetype.read_head(path)
    kind = filetype.sniff(head)
    if kind != filetype.SAFETENSORS:
        raise IntegrityError(f"{path}: looks like {kind}, not a safetensors file")
    size, file_bytes = int.from_bytes(head[:8], "little"), path.stat().st_size
    if size > min(MAX_HEADER, file_bytes - 8):
        raise IntegrityError(
            f"{path}: claims a header of {size:,} bytes in a file of {file_bytes:,} (at most"
            f" {MAX_HEADER:,})"
        )
    with path.open("rb") as file:
        file.seek(8)
        return _checked(path, _parse(path, file.read(size)), file_bytes - 8 - size)


def with_metadata(content: bytes, metadata: Mapping[str, str], where: Path) -> bytes:
    """A safetensors file of ours, its numbers as they are, with texts in its header.

    Raises IntegrityError naming the file `where` the content comes from, if it has no such header.
    """
    size = int.from_bytes(content[:8], "little")
    try:
        entries = json.loads(content[8 : 8 + size])
    except ValueError:
        entries = None
    if not isinstance(entries, dict):
        raise IntegrityError(f"{where}: not a safetensors file (no header of tensors)")
    entries["__metadata__"] = {**entries.get("__metadata__", {}), **metadata}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # numbers begin at a multiple of eight
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name twice")
        return found

    try:
        parsed = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path}: broken safetensors header ({str(error)[:80]})") from error
    if not isinstance(parsed, dict) or len(parsed) > MAX_TENSORS:
        raise IntegrityError(
            f"{path}: a safetensors header of {len(parsed):,} names (at most {MAX_TENSORS:,})"
        )
    return parsed


def _checked(path: Path, entries: dict[str, Any], payload: int) -> Header:
    metadata = entries.pop("__metadata__", {})
    tensors, spans = {}, []
    for name, entry in entries.items():
        try:
            dtype, shape, (begin, end) = (
                entry["dtype"],
                tuple(entry["shape"]),
                entry["data_offsets"],
            )
            numbers_good = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            size = math.prod(shape) * _BYTES[dtype] if numbers_good else -1
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{path}: tensor {name!r} is described wrongly in the header"
            ) from error
        if size != end - begin or end > payload:
            raise IntegrityError(
                f"{path}: tensor {name!r} claims shape {list(shape)} ({max(size, 0):,} bytes at"
                f" {begin}..{end}), the file holds {payload:,} bytes of numbers"
            )
        tensors[name] = (dtype, shape)
        spans.append((begin, end))
    _no_gaps(path, sorted(spans), payload)
    return Header(tensors, dict(metadata))


def _no_gaps(path: Path, spans: list[tuple[int, int]], payload: int) -> None:
    at = 0
    for begin, end in spans:
        if begin != at:
            raise IntegrityError(
                f"{path}: tensors overlap or leave a gap at byte {min(begin, at)} of the numbers"
            )
        at = end
    if at != payload:
        raise IntegrityError(f"{path}: {payload - at:,} bytes that belong to no tensor")
