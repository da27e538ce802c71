"""What a file is, from its first bytes, and what a safetensors file holds, from its header: no
tensor is read. No torch.

The header of a safetensors file: 8 bytes little-endian length N, N bytes of JSON {name: {dtype,
shape, data_offsets}}, then the numbers, without gaps. One that lies (1 TB tensor, overlapping
offsets, negative shape, a million names) is refused here.
"""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgc.errors import DataError, IntegrityError

HEAD = 64 * 1024
TORCH_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

ZIP, LEGACY, PICKLE, TAR, NPY, SAFETENSORS, PLAN = (
    "a zip archive",
    "a torch file of before 1.6",
    "a bare pickle",
    "a tar archive",
    "a NumPy .npy file",
    "a safetensors file",
    "a plan file",
)
_MAGIC = (
    (b"PK\x03\x04", ZIP),
    (b"PK\x05\x06", "an empty zip archive"),
    (TORCH_LEGACY_MAGIC, LEGACY),
    (b"\x93NUMPY", NPY),
    (b"\x89DGC\r\n\x1a\n", PLAN),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"RIFF", "a RIFF file (WebP, WAV or AVI)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89HDF", "an HDF5 file (Keras?)"),
    (b"\x7fELF", "a program (ELF)"),
    (b"MZ", "a program (Windows)"),
    (b"%PDF", "a PDF document"),
    (b"#!", "a script"),
)
_PAGES = (
    (b"quota exceeded", "a Google Drive quota page"),
    (b"virus scan warning", "the virus-scan page of Google Drive"),
    (b"google drive", "an HTML page from Google Drive"),
    (b"drive.google.com", "an HTML page from Google Drive"),
    (b"sign in to your account", "a Microsoft login page"),
    (b"login.microsoftonline", "a Microsoft login page"),
    (b"sharepoint", "an HTML page from OneDrive"),
    (b"onedrive", "an HTML page from OneDrive"),
)


def is_html(head: bytes) -> bool:
    """True where the first bytes are those of a web page (byte-order mark,
    blanks and comments allowed).
    """
    text = head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    # a byte-order mark and blanks go first: servers put both before a page
    return text.startswith(
        (b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml", b"<meta", b"<title")
    )


def sniff(head: bytes) -> str:
    """The kind in words, from the first HEAD bytes:
    'a zip archive', 'a PNG image', 'an unknown kind of file'.
    """
    if not head:
        return "an empty file"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if is_html(head):
        # a page whose owner is known gets a name that says what to do about it
        return next((kind for mark, kind in _PAGES if mark in head.lower()), "an HTML page")
    return _sniff_structure(head)


def _sniff_structure(head: bytes) -> str:
    # in order of how sure a mark is: these have no magic number at the very beginning
    if head[257:262] == b"ustar":
        return TAR
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return PICKLE
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return SAFETENSORS
    if head[0] == 0x08 and len(head) > 2 and head[1] < 32 and head[2] == 0x12:
        return "an ONNX model"
    if head.lstrip()[:1] in (b"{", b"["):
        return "a JSON text"
    return "an unknown kind of file"


def read_head(path: Path) -> bytes:
    """The first HEAD bytes of a regular file;
    a directory, FIFO or device is called by its name and never opened.

    Raises DataError where there is no such file, IntegrityError where it is no regular file.
    """
    try:
        mode = path.stat().st_mode
        # asked before it is opened: opening a FIFO would wait for somebody to write
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                return file.read(HEAD)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give the path of a checkpoint file"
        ) from error
    raise IntegrityError(f"{path}: is {_special(mode)}, no checkpoint file")


def _special(mode: int) -> str:
    names = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO (named pipe)"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for test, name in names if test(mode)), "a device")


# --- safetensors ----------------------------------------------------------------------------------

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
    """Check and return the header.
    Raises IntegrityError naming the file and what is wrong with it.
    """
    head = read_head(path)
    kind = sniff(head)
    if kind != SAFETENSORS:
        raise IntegrityError(f"{path}: looks like {kind}, not a safetensors file")
    size, file_bytes = int.from_bytes(head[:8], "little"), path.stat().st_size
    # before it is read: the length is the file's own claim
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
    # what the header said of itself stays; ours is added
    entries["__metadata__"] = {**entries.get("__metadata__", {}), **metadata}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # numbers begin at a multiple of eight
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    # json takes the last of two equal names, another reader may take the first: such a file has
    # no one meaning.
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # fewer names than pairs: one of them stood there twice
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
            # type, not isinstance: True is an int to Python, and a shape of True is a lie
            numbers_good = all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            size = math.prod(shape) * _BYTES[dtype] if numbers_good else -1
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{path}: tensor {name!r} is described wrongly in the header"
            ) from error
        # Shape, type and place must agree: each alone is believed by some reader.
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
    # Every byte belongs to one tensor: no two share numbers, and nothing is hidden between them.
    at = 0
    for begin, end in spans:
        if begin != at:
            raise IntegrityError(
                f"{path}: tensors overlap or leave a gap at byte {min(begin, at)} of the numbers"
            )
        at = end
    # and behind the last tensor nothing
    if at != payload:
        raise IntegrityError(f"{path}: {payload - at:,} bytes that belong to no tensor")
