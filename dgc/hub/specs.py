"""What a pickle describes, as plain records: names, storages, tensors. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
