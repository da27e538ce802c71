"""The bytes of a plan file (docs/deploy.md says them one by one). No torch.

Not for files of strangers: who reads is the library (dgc/kernels/cpu/src/plan), and so is who
checks what was written here.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgc.errors import ArgumentError, system_error
from dgc.runtime.native import Error, PreprocessingC, functions, raised
from dgc.runtime.plan import LINE, Preprocessing

MAGIC = b"\x89DGC\r\n\x1a\n"
SCHEMA = 1
PAGE = 4096
PROGRAMS, BLOCK, CLASSES, PREPROCESSING, ORIGIN = range(1, 6)  # kinds of sections
_HEADER = struct.Struct("<8sIIQIIQ16x")  # its checksum follows
_SECTION = struct.Struct("<IIQQQ")
_PROGRAM = struct.Struct("<10q")


@dataclass(frozen=True)
class FileProgram:
    """One program of the block: what it was made for, and where it lies."""

    registers: int
    image: tuple[int, int, int]
    answer: tuple[int, ...]
    place: int
    precision: int = 0  # 1: int8

    def pack(self) -> bytes:
        answer = (*self.answer, 1, 1)[:3]
        dims = len(self.answer)
        return _PROGRAM.pack(self.registers, self.precision, *self.image, dims, *answer, self.place)


@dataclass(frozen=True)
class Kernels:
    """What the reader must be: `dgc_abi_version` and the size of an operation."""

    abi: int
    op_bytes: int


def checksum(data: bytes | NDArray[np.uint8]) -> int:
    """XXH64."""
    array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    return int(functions().dgc_checksum(array.ctypes.data, array.size))


def file_bytes(
    kernels: Kernels,
    programs: Sequence[FileProgram],
    block: NDArray[np.uint8],
    classes: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    origin: Mapping[str, Any] | None = None,
) -> NDArray[np.uint8]:
    """A whole file, found good by the library that will read it. Raises ArgumentError for what no
    file may hold (a class name that is not printable), IntegrityError for a program that it
    refuses.
    """
    sections: dict[int, bytes | NDArray[np.uint8]] = {
        PROGRAMS: b"".join(p.pack() for p in programs),
        BLOCK: block,
    }
    if classes:
        sections[CLASSES] = b"".join(_name(name) + b"\0" for name in classes)
    if preprocessing is not None:
        sections[PREPROCESSING] = _preprocessing(preprocessing)
    if origin:
        sections[ORIGIN] = as_json("origin", origin).encode()
    data = _laid_out(kernels, sections)
    _check(data)
    return data


def _laid_out(
    kernels: Kernels, sections: Mapping[int, bytes | NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    end = LINE + len(sections) * _SECTION.size
    table, places = b"", []
    for kind, content in sections.items():
        # The block begins with a page of the file, so that it can be mapped as it lies.
        step = PAGE if kind == BLOCK else LINE
        start = -(-end // step) * step
        size = len(content)
        table += _SECTION.pack(kind, 0, start, size, checksum(content))
        places.append((start, content))
        end = start + size
    data = _aligned(end)
    for start, content in places:
        data[start : start + len(content)] = np.frombuffer(content, np.uint8)
    head = _HEADER.pack(
        MAGIC, SCHEMA, kernels.abi, end, len(sections), kernels.op_bytes, checksum(table)
    )
    # The header holds the checksum of the table, and the table those of the sections: one chain, so
    # a reader trusts no length that was not checked before.
    head += struct.pack("<Q", checksum(head))
    data[: LINE + len(table)] = np.frombuffer(head + table, np.uint8)
    return data


def _aligned(size: int) -> NDArray[np.uint8]:
    """Zeroed bytes that begin at a multiple of 64."""
    memory = np.zeros(size + LINE, np.uint8)
    skip = -memory.ctypes.data % LINE
    return memory[skip : skip + size]


def _name(name: str) -> bytes:
    if not name.isprintable():
        raise ArgumentError(f"class name {name!r}: should be printable")
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"class name {name!r}: {error.reason}") from error


def as_json(name: str, value: Any) -> str:
    """For a section or a property called `name`. Raises ArgumentError."""
    try:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
        text.encode()  # halves of surrogates
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{name}: should be JSON: {error}") from error
    return text


def _preprocessing(how: Preprocessing) -> bytes:
    three = ctypes.c_double * 3
    resize = how.resize or 0
    return bytes(
        PreprocessingC(three(*how.mean), three(*how.std), resize, how.image_size, how.channels, 1)
    )


def _check(data: NDArray[np.uint8]) -> None:
    c, why = functions(), Error()
    # Its own reader is asked before anything is written: whatever it would
    # refuse is a fault here, and is told while the network is still at hand.
    plan = c.dgc_plan_from_memory(data.ctypes.data, data.size, ctypes.byref(why))
    if not plan:
        raise raised(why, "the plan that was made")
    c.dgc_plan_close(plan)


def write(data: bytes | NDArray[np.uint8], file: Path) -> None:
    """Put a file in its place whole, so that whoever has the old one mapped keeps it. Raises
    UsageError or ResourceError where the system refuses it.
    """
    try:
        _put(data, file)
    except OSError as error:
        # the temporary name would say nothing to who gave `file`
        error.filename = str(file)
        raise system_error(error) from error


def _put(data: bytes | NDArray[np.uint8], file: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as f:
        try:
            f.write(data if isinstance(data, bytes) else data.data)
            f.flush()
            os.fsync(f.fileno())
            # NamedTemporaryFile gives it to its owner alone, and a plan is made to be handed on.
            os.chmod(f.name, 0o644)
            os.replace(f.name, file)
        except BaseException:
            os.unlink(f.name)
            raise
