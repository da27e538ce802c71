"""The parts of a pickle: its bytes as instructions, read within bounds, and plain records of what
they describe. No torch, nothing is carried out.

What the instructions would do is worked out in `pickles`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from dgc.errors import IntegrityError

MAX_LITERAL = 1 << 20  # bytes; a checkpoint's strings are the names of its keys


# storage class -> (dtype as written in our own records, bytes an element)
STORAGES = {
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}


class Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


class BoundedReader:
    """A bounded reader over bytes or an mmap: no literal is longer than MAX_LITERAL."""

    def __init__(self, data: Any, start: int, end: int, label: str) -> None:
        self._data, self._at, self._end, self._label = data, start, end, label

    def tell(self) -> int:
        return self._at

    def read(self, size: int, /) -> bytes:
        # before it is read: the length is the pickle's own claim
        if size > MAX_LITERAL:
            raise IntegrityError(
                f"{self._label}: a literal of {size:,} bytes at offset {self._at}; not a checkpoint"
            )
        chunk = bytes(self._data[self._at : min(self._at + size, self._end)])
        self._at += len(chunk)
        return chunk

    def readline(self) -> bytes:
        # no newline within the limit: as much as `read` takes, which refuses it
        stop = self._data.find(b"\n", self._at, min(self._at + MAX_LITERAL, self._end))
        return self.read((stop + 1 if stop >= 0 else self._end) - self._at)


def opcodes(reader: Reader) -> Iterator[tuple[str, Any, int]]:
    """Each instruction by name, with its argument and its offset in the file."""
    for opcode, arg, position in pickletools.genops(reader):  # type: ignore[arg-type]
        yield opcode.name, arg, position or 0


# --- what a pickle describes ----------------------------------------------------------------------


@dataclass(frozen=True)
class Global:
    """A name that the pickle asks for."""

    name: str


@dataclass(frozen=True)
class StorageSpec:
    """A block of raw numbers that lies elsewhere in the file."""

    key: str
    dtype: str
    itemsize: int
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * self.itemsize


@dataclass(frozen=True)
class TensorSpec:
    """A tensor as the pickle describes it: a window into a storage."""

    storage: StorageSpec
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.storage.dtype

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        return self.numel * self.storage.itemsize


@dataclass
class Ordered:
    """An OrderedDict that the pickle builds (its attributes, such as `_metadata`, are not kept)."""

    items: dict[Any, Any] = field(default_factory=dict)
