"""The C structures of `src/abi.h` and `src/train_abi.h`, field by field."""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_int64, c_void_p
from enum import IntEnum


class Kind(IntEnum):
    """What an operation does (`DgcKind`)."""

    INPUT = 0
    OUTPUT = 1
    MEAN = 2
    LINEAR = 3
    GATES = 4
    SELECT = 5
    PACK = 6
    CONV = 7
    WINO = 8
    POOL = 9
    ADD = 10


class Tensor(Structure):
    _fields_ = [
        *(
            (name, c_int64)
            for name in (
                "arena",
                "offset",
                "plane",
                "phases",
                "phase_plane",
                "lead",
                "row",
                "length",
            )
        ),
        *((name, c_int64) for name in ("height", "width", "channels")),
        ("mask", c_void_p),
    ]


class Region(Structure):
    _fields_ = [("arena", c_int64), ("offset", c_int64)]


class Op(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("kind", "batched")),
        *((name, Tensor) for name in ("src", "dst", "residual")),
        *((name, Region) for name in ("input", "out", "list")),
        *((name, c_int64) for name in ("channels", "heads", "outs", "dynamic", "taps")),
        *((name, c_void_p) for name in ("offsets", "weight", "external", "bias")),
        *((name, c_void_p) for name in ("in_scale", "in_shift")),
        *((name, c_int64) for name in ("relu", "in_relu", "has_residual")),
        *(
            (name, c_int64)
            for name in ("out_step", "head_step", "inactive", "hidden", "scale_weights")
        ),
        ("panel", Region),
        ("lanes", c_int64),
        ("span", c_int64),
        ("edges", c_void_p),
        *((name, c_int64) for name in ("pool_kind", "pool_kernel", "pool_stride", "pool_pad")),
    ]


class Program(Structure):
    _fields_ = [
        ("ops", ctypes.POINTER(Op)),
        *(
            (name, c_int64)
            for name in ("count", "thread_floats", "sample_floats", "scratch_floats")
        ),
        *((name, c_int64) for name in ("in_floats", "out_floats")),
    ]


class Run(Structure):
    _fields_ = [
        ("program", ctypes.POINTER(Program)),
        *((name, c_void_p) for name in ("input", "output", "arena")),
        *((name, c_int64) for name in ("samples", "threads")),
        ("seconds", c_void_p),
    ]


class Pass(IntEnum):
    """What is done (`DgcPass`)."""

    MOMENTS = 0
    POOLED = 1
    CHOOSE = 2
    ADD_AFFINE = 3
    FORWARD = 4
    GRAD_WEIGHT = 5
    GRAD_INPUT = 6


class Planes(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("stride", "row", "lead", "length")),
        *((name, c_void_p) for name in ("phase", "shift")),
    ]


class Train(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("op", "samples", "threads", "channels", "height", "width")),
        *(
            (name, c_int64)
            for name in (
                "out_height",
                "out_width",
                "heads",
                "outs",
                "taps",
                "own",
                "kept",
                "inactive",
            )
        ),
        *((name, c_int64) for name in ("out_step", "head_step")),
        ("planes", Planes),
        ("x", c_void_p),
        ("x_step", c_int64),
        *(
            (name, c_void_p)
            for name in ("scale", "shift", "mean", "gates", "count", "index", "gate", "weight")
        ),
        ("y", c_void_p),
        ("y_step", c_int64),
        *(
            (name, c_void_p)
            for name in ("plane_mean", "plane_square", "grad_weight", "grad_gate", "grad_pooled")
        ),
        ("grad_x", c_void_p),
        ("grad_x_step", c_int64),
        ("factor", c_void_p),
        ("add", c_int64),
        ("sums", c_void_p),
        ("scratch", c_void_p),
        ("scratch_step", c_int64),
    ]
