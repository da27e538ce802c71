"""The shared library and the functions of `dgc_plan.h`, by ctypes. No torch."""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int64,
    c_uint64,
    c_void_p,
)
from functools import cache
from pathlib import Path
from typing import Any

from dgc.errors import DgcError, UsageError, error_of

API = 1  # DGC_PLAN_API of dgc_plan.h
ELSEWHERE = "DGC_NATIVE_LIBRARY"
LEVELS = "DGC_NATIVE_ISA"
_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE, _HERE.parent / "kernels" / "cpu")  # of a package of its own; within dgc
_X86 = {"baseline": 1, "avx2": 2, "avx512": 3}
_ISAS = {**_X86, "neon": 1}
_FEATURES = ("vnni", "bf16", "amx")


class Error(Structure):
    _fields_ = [("code", c_int), ("text", c_char * 244)]


class ShapeC(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("channels", "height", "width", "out_dims")),
        ("out", c_int64 * 3),
        ("in_floats", c_int64),
        ("out_floats", c_int64),
        ("precision", c_int64),
    ]


class PreprocessingC(Structure):
    _fields_ = [
        ("mean", c_double * 3),
        ("std", c_double * 3),
        *((name, c_int64) for name in ("resize", "image_size", "channels", "crop")),
    ]


class OptionsC(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("height", "width", "images", "threads", "isa")),
        ("memory", c_void_p),
        ("memory_bytes", c_int64),
    ]


_WHY = POINTER(Error)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "dgc_plan_api": (c_int, []),
    "dgc_plan_open": (c_void_p, [c_char_p, _WHY]),
    "dgc_plan_from_memory": (c_void_p, [c_void_p, c_int64, _WHY]),
    "dgc_plan_close": (None, [c_void_p]),
    "dgc_plan_shapes": (c_int64, [c_void_p]),
    "dgc_plan_shape": (c_int, [c_void_p, c_int64, POINTER(ShapeC)]),
    "dgc_plan_classes": (c_int64, [c_void_p]),
    "dgc_plan_class": (c_char_p, [c_void_p, c_int64]),
    "dgc_plan_preprocessing": (POINTER(PreprocessingC), [c_void_p]),
    "dgc_plan_origin": (c_void_p, [c_void_p, POINTER(c_int64)]),
    "dgc_runner_bytes": (c_int64, [c_void_p, POINTER(OptionsC), _WHY]),
    "dgc_runner_new": (c_void_p, [c_void_p, POINTER(OptionsC), _WHY]),
    "dgc_runner_run": (c_int, [c_void_p, c_void_p, c_int64, c_void_p, _WHY]),
    "dgc_runner_shape": (POINTER(ShapeC), [c_void_p]),
    "dgc_runner_free": (None, [c_void_p]),
    "dgc_checksum": (c_uint64, [c_void_p, c_int64]),
}


def library() -> Path:
    """The shared library, for a C program to link with."""
    # A library that was named is the only one: another
    # that happens to lie here would hide a wrong name.
    named = os.environ.get(ELSEWHERE)
    found = [Path(named)] if named else [p for f in _PLACES for p in f.glob("_dgc_native*.so")]
    if not found:
        raise UsageError(
            "the kernels were not built (no C++ compiler at installation?), and plan files need"
            " them: install dgcctl again with a compiler, or a wheel for this machine"
        )
    return found[0]


def header() -> Path:
    """The folder of `dgc_plan.h`."""
    folder = _HERE.parent / "kernels" / "cpu" / "src" / "plan"
    return next(f for f in (_HERE, folder) if (f / "dgc_plan.h").is_file())


def examples() -> Path:
    """The folder of `plan.c` and `plan.cpp`."""
    places = (_HERE / "examples", _HERE.parent.parent / "examples")  # installed; a checkout
    return next(folder for folder in places if (folder / "plan.c").is_file())


@cache
def functions() -> ctypes.CDLL:
    """The loaded library. Raises UsageError where there is none that fits."""
    path = library()
    try:
        # The types of every function: ctypes takes a pointer for an int of 32 bits otherwise.
        handle = ctypes.CDLL(str(path))
        for name, (answer, arguments) in _FUNCTIONS.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = answer, arguments
    except (OSError, AttributeError) as error:
        raise UsageError(f"{path.name} cannot be loaded: {error}; install dgcctl again") from error
    # Before anything else is called: functions of another version may take other structures.
    if handle.dgc_plan_api() != API:
        raise UsageError(f"{path.name} is of another version; install dgcctl again")
    return handle


def isa_wanted() -> int:
    """What DGC_NATIVE_ISA asks for, as `DgcOptions.isa`; 0: the widest there is."""
    text = os.environ.get(LEVELS, "")
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:  # a plan takes levels alone, but the variable is the module's too
        if word not in _ISAS and word.removeprefix("-") not in _FEATURES and word != "none":
            known = ", ".join([*_ISAS, *_FEATURES])
            raise UsageError(f"{LEVELS}={text}: unknown word {word!r}: should be one of {known}")
    levels = [word for word in words if word in _ISAS or word == "none"]
    if "none" in levels:
        raise UsageError(f"{LEVELS}=none: a plan file has nothing to run with but the kernels")
    return _ISAS[levels[0]] if levels else 0


def raised(error: Error, what: str) -> DgcError:
    """The exception for an error of the library; its codes are the exit codes."""
    return error_of(error.code, f"{what}: {error.text.decode('utf-8', 'replace')}")
