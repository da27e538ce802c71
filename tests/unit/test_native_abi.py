"""The structures and enumerations of the C interface and their mirror in Python, as the compiler of
this build laid them out: each name, offset, size and value.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from enum import IntEnum

import pytest

from dgc.kernels.cpu import library, structs

pytestmark = pytest.mark.skipif(
    not library.available(), reason="the kernels were not built: no C++ compiler"
)

MIRRORS: dict[str, type[ctypes.Structure]] = {
    "DgcTensor": structs.Tensor,
    "DgcRegion": structs.Region,
    "DgcOp": structs.Op,
    "DgcProgram": structs.Program,
    "DgcRun": structs.Run,
    "DgcPlanes": structs.Planes,
    "DgcTrain": structs.Train,
    "DgcNorm": structs.Norm,
    "DgcInt8": structs.Int8,
}
ENUMERATIONS: tuple[type[IntEnum], ...] = (
    structs.Kind,
    structs.Act,
    structs.Mode,
    structs.Answer,
    structs.Pass,
    structs.NormPass,
    structs.Int8Pass,
)
RENAMED = {  # words of Python
    "DgcOp.input": "DgcOp.in",
    "DgcTrain.op": "DgcTrain.pass",
    "DgcNorm.op": "DgcNorm.pass",
    "DgcInt8.op": "DgcInt8.pass",
}


class Field(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("offset", ctypes.c_int64), ("size", ctypes.c_int64)]


def compiled() -> list[tuple[str, int, int]]:
    """(name, offset, size) of each structure and field, (name, value, 0) of each enumeration's."""
    loaded = library.load()
    assert loaded is not None
    loaded.handle.dgc_fields.restype = ctypes.POINTER(Field)
    fields = loaded.handle.dgc_fields()
    count = int(loaded.handle.dgc_field_count())
    return [(fields[i].name.decode(), fields[i].offset, fields[i].size) for i in range(count)]


def mirrored() -> Iterator[tuple[str, int, int]]:
    for name, mirror in MIRRORS.items():
        yield name, 0, ctypes.sizeof(mirror)
        for field, *_ in mirror._fields_:
            place = getattr(mirror, field)
            full = f"{name}.{field}"
            yield RENAMED.get(full, full), place.offset, place.size
    for enumeration in ENUMERATIONS:
        for member in enumeration:
            yield f"DGC_{member.name}", int(member), 0


def test_every_field_lies_where_the_compiler_put_it() -> None:
    assert sorted(mirrored()) == sorted(compiled())


def test_the_table_of_fields_leaves_none_out() -> None:
    found = compiled()
    for name, _, whole in [row for row in found if row[0] in MIRRORS]:
        end = 0
        for _, offset, size in [row for row in found if row[0].startswith(f"{name}.")]:
            assert offset == end, name
            end = offset + size
        assert end == whole, name
