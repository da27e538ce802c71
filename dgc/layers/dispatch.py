"""Which algorithm computes a layer. This is the only module that decides it; whether a whole block
is computed as one is decided beside it, in dgc.layers.block_dispatch.

Each kind of layer has a table. It is read from the top, and the first row is taken whose backends
name the one that was asked for and whose conditions all hold. What a row costs or saves is said
beside it; the figures are in benchmarks/results.

    DYNAMIC   a dynamic group convolution with its BatchNorms (dgc.layers.dynamic)
    STATIC    BatchNorm, ReLU and a plain or grouped convolution (dgc.layers.static)

To add an algorithm: a file in dgc/layers/algorithms, a row here, a case in
tests/unit/test_algorithms.py, which holds it against the oracle (dgc.layers.reference).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from dgc.errors import ArgumentError
from dgc.kernels import gpu
from dgc.kernels.cpu import train_passes
from dgc.layers.backend import Backend
from dgc.layers.support import (
    can_fuse,
    common_device,
    common_dtype,
    norm_tensors,
    splittable,
)

Algorithm = Literal[
    "native", "triton", "own_weights", "all_heads", "product", "per_sample", "per_head", "masked",
    "gathered",
]  # fmt: skip
# these compute a layer with its BatchNorms, gates and ReLUs as one autograd function
WHOLE_LAYER: tuple[Algorithm, ...] = (
    "native", "triton", "own_weights", "all_heads", "product", "per_sample", "per_head"
)  # fmt: skip
# channels that the CPU's convolution kernels take at once; more are selected to fill the last ones
LANES = 16
# below so many output pixels a channel, gathering its weights costs more than it saves
LEAST_PIXELS = 64


class _Tensors(Protocol):
    """What is known of the tensors of a call."""

    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> torch.dtype | None: ...
    @property
    def nchw(self) -> bool: ...


class LayerCall(NamedTuple):
    """One call of a dynamic layer, as far as it decides the algorithm."""

    backend: Backend
    kernel: int
    padding: int
    channels: int
    n_inactive: int
    # a tracer, torch.func or shapes alone need operations that PyTorch can take apart
    fusible: bool = False
    norms_split: bool = False
    device: str = "cpu"
    dtype: torch.dtype | None = None  # of the input (autocast counted in) and parameters, if one
    nchw: bool = False
    pixels: int = 0  # of an output channel
    head_outputs: int = 0  # channels that a head computes
    operators: bool = False  # those of algorithms.triton_operator can stand for the layer

    @property
    def selected(self) -> int:
        """Channels that a head reads at most."""
        return self.channels - self.n_inactive


class Dispatch(NamedTuple):
    """An algorithm and the number of channels
    that each head reads (those beyond C - n have gate 0).
    """

    algorithm: Algorithm
    channels: int


# --- conditions -----------------------------------------------------------------------------------


def fusible(c: LayerCall) -> bool:
    return c.fusible


def norms_split(c: LayerCall) -> bool:
    return c.norms_split


def kernels_built(_: object) -> bool:
    return train_passes.available()


def triton_built(_: object) -> bool:
    return gpu.installed()


def on_cpu(c: _Tensors) -> bool:
    return c.device == "cpu"


def on_cuda(c: _Tensors) -> bool:
    return c.device == "cuda"


def on_gpu(c: _Tensors) -> bool:
    return c.device == "cuda" or gpu.interpreted()


def not_float64(c: _Tensors) -> bool:
    """Under autocast there is no common dtype; what else there may be the kernels check."""
    return c.dtype != torch.float64


def float32(c: _Tensors) -> bool:
    return c.dtype == torch.float32


def nchw(c: _Tensors) -> bool:
    return c.nchw


def unpadded_1x1(c: LayerCall) -> bool:
    return c.kernel == 1 and c.padding == 0


def fewer_outputs_than_pixels(c: LayerCall) -> bool:
    """Weights of each sample's own (O * C numbers) are passed over 11 times in a training step, the
    input masked for each of G heads (G * C * P numbers) 13 times: about the smaller is taken.
    """
    return c.head_outputs < c.pixels


def kernel_1(c: LayerCall) -> bool:
    return c.kernel == 1


def many_pixels(c: LayerCall) -> bool:
    return c.pixels >= LEAST_PIXELS


def half_off(c: LayerCall) -> bool:
    return 2 * c.selected <= c.channels


def traced(c: LayerCall) -> bool:
    return not c.fusible


def operators(c: LayerCall) -> bool:
    return c.operators


def all_channels(c: LayerCall) -> int:
    return c.channels


def selected_if_half_off(c: LayerCall) -> int:
    """Gathering pays once half of the channels are off."""
    return c.selected if half_off(c) else c.channels


def selected_in_lanes(c: LayerCall) -> int:
    """The selected ones, filled up to whole vectors;
    all, where those are more than three quarters.
    """
    filled = -(-c.selected // LANES) * LANES
    return filled if 4 * filled <= 3 * c.channels else c.channels


# --- the tables -----------------------------------------------------------------------------------


class DispatchRow(NamedTuple):
    algorithm: Algorithm
    backends: tuple[Backend, ...]
    needs: tuple[Callable[[LayerCall], bool], ...]
    channels: Callable[[LayerCall], int] = all_channels


_PLAIN: tuple[Backend, ...] = ("auto", "plain")
_TRACED: tuple[Backend, ...] = ("auto", "plain", "native", "triton")
_NATIVE = (fusible, norms_split, kernels_built, on_cpu, float32, nchw)
_TRITON = (fusible, norms_split, triton_built, on_gpu, not_float64)

DYNAMIC: tuple[DispatchRow, ...] = (
    # the oracle, and its gathering twin: PyTorch's own operations, differentiated by PyTorch
    DispatchRow("masked", ("masked",), ()),
    DispatchRow("gathered", ("gathered",), ()),
    # the C++ kernels: channels a head does not select are skipped, nothing is gathered
    DispatchRow("native", ("auto", "native"), _NATIVE),
    # GPU kernels, by name alone (benchmarks/gpu.md): a win needs a CUDA graph, and 3x3 has none
    DispatchRow("triton", ("triton",), _TRITON),
    # plain PyTorch with a backward of our own that keeps the raw input alone.
    # on a GPU in few launches (dgc.layers.gpu_layer): nothing is gathered, all channels are
    # multiplied; whichever moves fewer bytes (benchmarks/gpu.md)
    DispatchRow(
        "own_weights",
        _PLAIN,
        (fusible, norms_split, on_cuda, unpadded_1x1, fewer_outputs_than_pixels),
    ),
    DispatchRow("all_heads", _PLAIN, (fusible, norms_split, on_cuda)),
    # 1x1: one batched product
    DispatchRow("product", _PLAIN, (fusible, norms_split, unpadded_1x1), selected_if_half_off),
    # wider kernels: what one sample needs stays in the cache
    DispatchRow(
        "per_sample", _PLAIN, (fusible, norms_split, on_cpu, many_pixels), selected_in_lanes
    ),
    # small images
    DispatchRow("per_head", _PLAIN, (fusible, norms_split)),
    # torch.compile, torch.func, and norms that cannot be taken apart (SyncBatchNorm, hooks)
    DispatchRow("gathered", _PLAIN, (kernel_1, half_off)),
    DispatchRow("masked", _PLAIN, ()),
    # a compiler is shown operators that stand for the kernels
    DispatchRow("triton", ("triton",), (traced, operators)),
    DispatchRow("gathered", _TRACED, (traced, kernel_1, half_off)),
    DispatchRow("masked", _TRACED, (traced,)),
)


def dynamic(call: LayerCall) -> Dispatch:
    """The algorithm of a call. Raises ArgumentError where the backend of that name cannot."""
    return _dynamic(call, _installed())


def _installed() -> tuple[bool, bool, bool]:  # the conditions ask for it besides the call
    if torch.compiler.is_compiling():
        return False, False, False  # it can trace no question to the file system
    return train_passes.available(), gpu.installed(), gpu.interpreted()


# a network asks the same few questions at each batch, once a layer; a refusal is not kept
@functools.lru_cache(maxsize=4096)
def _dynamic(call: LayerCall, _: tuple[bool, bool, bool]) -> Dispatch:
    for row in DYNAMIC:
        if call.backend in row.backends and all(need(call) for need in row.needs):
            return Dispatch(row.algorithm, row.channels(call))
    raise ArgumentError(_refusal(call))


def _refusal(call: LayerCall) -> str:
    # only these two can be refused: every other backend has a row that takes all calls
    needs = _NATIVE if call.backend == "native" else _TRITON
    wanting = next(need for need in needs if not need(call))
    return f"backend={call.backend!r}: {_WANTING[wanting]}: use backend='auto'"


_WANTING: dict[Callable[[LayerCall], bool], str] = {
    norms_split: "a BatchNorm of the layer is no plain one or has hooks",
    kernels_built: "the C++ kernels are not there",
    triton_built: "Triton is not installed",
    on_cpu: "the C++ kernels work on the CPU, and the input is not there",
    on_gpu: "Triton kernels work on a GPU, and the input is not there",
    not_float64: "Triton kernels work in float32, bf16 and fp16, and the input is float64",
    float32: "the C++ kernels work in float32, and input or parameters are not (or autocast is on)",
    nchw: "the C++ kernels take images that are contiguous (NCHW), and the input is not",
}


StaticAlgorithm = Literal["native", "triton", "recompute", "modules"]


class StaticCall(NamedTuple):
    """One call of BatchNorm, ReLU and a convolution, as far as it decides the algorithm."""

    # the modules may be taken apart: no tracer, a plain BatchNorm, no bias, no hooks
    parts_split: bool
    kernels: bool = False  # the backend allows the C++ kernels
    triton: bool = False  # the backend is the GPU's kernels
    groups: int = 1
    device: str = "cpu"
    dtype: torch.dtype | None = None
    nchw: bool = False

    @classmethod
    def of(
        cls, norm: nn.Module, conv: nn.Conv2d, x: Tensor, *, kernels: bool, triton: bool = False
    ) -> StaticCall:
        if not (
            can_fuse(x) and splittable(norm, x) and conv.bias is None and not conv._forward_hooks
        ):
            return cls(parts_split=False)
        parameters = norm_tensors(norm)
        return cls(
            parts_split=True,
            kernels=kernels,
            triton=triton,
            groups=conv.groups,
            device=common_device(x, parameters),
            dtype=common_dtype(x, parameters),
            nchw=train_passes.is_nchw_contiguous(x),
        )


class StaticRow(NamedTuple):
    algorithm: StaticAlgorithm
    needs: tuple[Callable[[StaticCall], bool], ...]


def parts_split(c: StaticCall) -> bool:
    return c.parts_split


def kernels_wanted(c: StaticCall) -> bool:
    return c.kernels


def triton_wanted(c: StaticCall) -> bool:
    return c.triton


def grouped(c: StaticCall) -> bool:
    return c.groups > 1


STATIC: tuple[StaticRow, ...] = (
    # the C++ kernels, where there are groups; without, PyTorch's own are as good
    StaticRow(
        "native", (parts_split, kernels_wanted, grouped, kernels_built, on_cpu, float32, nchw)
    ),
    # the GPU's kernels: BatchNorm and ReLU in one pass each way, narrow groups whole
    StaticRow("triton", (parts_split, triton_wanted, triton_built, on_gpu, not_float64)),
    # PyTorch's convolution; the activations are made again in backward
    StaticRow("recompute", (parts_split,)),
    StaticRow("modules", ()),
)


def static(call: StaticCall) -> StaticAlgorithm:
    """The algorithm of a call; 'native' as a wish binds dynamic layers alone."""
    return _static(call, _installed())


@functools.lru_cache(maxsize=4096)  # as above
def _static(call: StaticCall, _: tuple[bool, bool, bool]) -> StaticAlgorithm:
    return next(row.algorithm for row in STATIC if all(need(call) for need in row.needs))
