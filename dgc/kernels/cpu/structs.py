"""The C structures of `src/infer/abi.h`, `src/infer/int8/int8_abi.h` and
`src/train/train_abi.h`, field by field."""

from __future__ import annotations

from ctypes import Structure, c_int64, c_void_p
from enum import IntEnum
from typing import Any


def _integers(names: str) -> list[tuple[str, Any]]:
    return [(name, c_int64) for name in names.split()]


def _addresses(names: str) -> list[tuple[str, Any]]:
    return [(name, c_void_p) for name in names.split()]


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
    COMBINE = 11
    GATHER = 12
    RESAMPLE = 13
    FLATTEN = 14
    SPREAD = 15
    VECTOR = 16
    SOFTMAX = 17
    ALONG = 18
    DEPTHWISE = 19
    ADAPTIVE = 20
    CONV8 = 100
    STATS = 101
    READERS = 102
    ROWS16 = 103
    GATES16 = 104


class Act(IntEnum):
    """What follows the sum of an operation (`DgcAct`)."""

    NO_ACT = 0
    RELU = 1
    RELU6 = 2
    HARDSWISH = 3
    HARDSIGMOID = 4
    SILU = 5
    SIGMOID = 6
    LEAKY = 7
    GELU = 8
    GELU_TANH = 9
    TANH = 10
    ELU = 11
    MISH = 12


class Mode(IntEnum):
    """How an operation combines its operands, or goes through its image (`DgcMode`)."""

    ALONE = 0
    PLUS = 1
    MINUS = 2
    TIMES = 3
    BY_ROWS = 4


class Answer(IntEnum):
    """What a run answers (`DgcAnswer`)."""

    DONE = 0
    NO_SUCH_ISA = 1
    BAD_BLOCK = 2
    BAD_WORKSPACE = 3


class Tensor(Structure):
    _fields_ = _integers(
        "arena offset plane phases phase_plane lead row length height width channels mask reused"
    )


class Region(Structure):
    _fields_ = _integers("arena offset")


# Fields of an operation that are offsets in bytes into the program's block, beside the masks of its
# tensors; 0: there is none.
CONSTANTS = ("offsets", "weight", "external", "bias", "in_scale", "in_shift", "edges", "index")
IMAGES = ("src", "dst", "residual")
LAYOUTS = ("bytes", "unpooled")  # tensors without a place in the workspace


class Op(Structure):
    """Constants (CONSTANTS, and masks of IMAGES and LAYOUTS) are offsets into the block."""

    _fields_ = [
        *_integers("kind batched"),
        *((name, Tensor) for name in ("src", "dst", "residual")),
        *((name, Region) for name in ("input", "out", "list")),
        *_integers("channels heads outs dynamic taps"),
        *_integers("offsets weight external bias in_scale in_shift"),
        *_integers("relu in_relu has_residual out_step head_step inactive hidden scale_weights"),
        ("panel", Region),
        *_integers("lanes span edges pool_kind pool_kernel pool_stride pool_pad"),
        *_integers(
            "pool_kernel_w pool_stride_w pool_pad_w act slope mode has_vector index out_first"
        ),
        *((name, Tensor) for name in LAYOUTS),
    ]


class Program(Structure):
    _fields_ = _integers(
        "ops count thread_floats sample_floats scratch_floats in_floats out_floats exact"
    )


class Run(Structure):
    _fields_ = [
        *_addresses("block"),
        *_integers("block_bytes program"),
        *_addresses("input output workspace"),
        *_integers("workspace_floats samples threads features"),
        *_addresses("seconds"),
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
    _fields_ = [*_integers("stride row lead length"), *_addresses("phase shift")]


class Train(Structure):
    """Training keeps addresses: a pass works on tensors of PyTorch, and is never stored."""

    _fields_ = [
        *_integers("op samples threads channels height width out_height out_width"),
        *_integers("heads outs taps own kept inactive out_step head_step"),
        ("planes", Planes),
        *_addresses("x"),
        *_integers("x_step"),
        *_addresses("scale shift mean gates count index gate weight y"),
        *_integers("y_step"),
        *_addresses("plane_mean plane_square grad_weight grad_gate grad_pooled grad_x"),
        *_integers("grad_x_step"),
        *_addresses("factor"),
        *_integers("add"),
        *_addresses("sums scratch"),
        *_integers("scratch_step"),
    ]


class NormPass(IntEnum):
    """What is done around the convolutions (`DgcNormPass`)."""

    NORM_RELU = 0
    NORM_MASK = 1
    NORM_BACK = 2
    NORM_POOL = 3
    NORM_POOL_SUMS = 4
    NORM_POOL_BACK = 5
    NORM_MEAN = 6
    NORM_MEAN_BACK = 7
    NORM_TURN = 8


class Norm(Structure):
    """Addresses of tensors, as `Train`."""

    _fields_ = [
        *_integers("op samples threads channels height width"),
        *_integers("out_height out_width kernel stride padding"),
        *_addresses("x"),
        *_integers("x_step"),
        *_addresses("scale shift mean other"),
        *_integers("other_step"),
        *_addresses("other_scale other_shift other_mean y"),
        *_integers("y_step"),
        *_addresses("plane_mean plane_square place grad"),
        *_integers("grad_step"),
        *_addresses("to"),
        *_integers("to_step"),
        *_addresses("a b sums scratch"),
        *_integers("scratch_step"),
    ]


class Int8Pass(IntEnum):
    """What is done with an 8-bit layer (`DgcInt8Pass`)."""

    INT8_MEANS = 0
    INT8_CONVOLVE = 1
    INT8_REFERENCE = 2


class Int8(Structure):
    """An 8-bit convolution over a batch; addresses, as in training."""

    _fields_ = [
        ("op", c_int64),
        *_integers("samples threads"),
        *((name, Tensor) for name in ("src", "dst", "image")),
        *_addresses("x"),
        *_integers("x_step"),
        *_addresses("src_mask dst_mask y"),
        *_integers("y_step"),
        *_addresses("residual"),
        *_integers("channels heads outs taps dynamic"),
        *_addresses("offsets weight weight_scale bias in_scale in_shift"),
        *_integers("is_signed relu out_step head_step"),
        *_addresses("mean top list out_mean out_top scratch"),
        *_integers("scratch_step"),
    ]
