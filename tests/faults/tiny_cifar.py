"""A CIFAR of a few images, packed exactly like the real one, and archives that are not what they
should be.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from dgc.data.cifar import Source


class Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Writes bytes as Python 2 wrote its strings; the real files were made that way."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(b"T" + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def _pickled(value: object) -> bytes:
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(value)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    """The six batch files of a CIFAR-10 with 8 images each, as Python 2 pickled them (protocol 2,
    text keys).
    """
    random = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    batches = {
        name: {
            b"data": random.integers(0, 256, (8, 3072), np.uint8),
            b"labels": [number % 10 for number in range(8)],
        }
        for name in names
    }
    return {name: _pickled(batch) for name, batch in batches.items()}


def pack(path: Path, members: dict[str, bytes] | None = None) -> Source:
    """Write the archive and return the Source that describes it."""
    content = members or {f"cifar-10-batches-py/{name}": data for name, data in files().items()}
    with tarfile.open(path, "w:gz") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in files().items()}
    pairs = tuple(md5.items())
    source = Source(
        "cifar10", "", path.name, "", 0, "cifar-10-batches-py", pairs[:5], pairs[5:], "labels"
    )
    return described(source, path)


def described(source: Source, path: Path) -> Source:
    """The Source that takes this very file for the published one."""
    data = path.read_bytes()
    return replace(source, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
