"""Callables to be timed: the project, its twins, and the dense network in other engines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dgc.bench.networks import build, with_backend
from dgc.bench.precisions import LOWER, as_onnx, openvino
from dgc.infer import compile_for_inference

Call = Callable[[], object]
Maker = Callable[[str, Tensor, int], Call]


def torch_call(model: nn.Module, x: Tensor) -> Call:
    def call() -> object:
        with torch.inference_mode():
            return model(x)

    return call


def _native(name: str, x: Tensor, threads: int) -> Call:
    return torch_call(compile_for_inference(build(name, "dgc")), x)


def _plain(name: str, x: Tensor, threads: int) -> Call:
    return torch_call(with_backend(build(name, "dgc"), "plain"), x)


def _masked(name: str, x: Tensor, threads: int) -> Call:
    return torch_call(with_backend(build(name, "dgc"), "masked"), x)


def _dense(name: str, x: Tensor, threads: int) -> Call:
    return torch_call(build(name, "dense"), x)


def _sgc(name: str, x: Tensor, threads: int) -> Call:
    return torch_call(build(name, "sgc"), x)


def _dense_compiled(name: str, x: Tensor, threads: int) -> Call:
    model: Any = torch.compile(copy.deepcopy(build(name, "dense")))
    return torch_call(model, x)


def _dense_onnxruntime(name: str, x: Tensor, threads: int) -> Call:
    return onnxruntime_call(as_onnx(name, x), x, threads)


def onnxruntime_call(onnx: bytes, x: Tensor, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Operators one after the other: run side by side
    # they would take more threads than were allowed.
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed)


MAKERS: dict[str, Maker] = {
    "native": _native,
    "plain": _plain,
    "dense_eager": _dense,
    "dense_onnxruntime": _dense_onnxruntime,
    # where the CPU has bfloat16 units, OpenVINO would take those by itself
    "dense_openvino": openvino("f32", quantised=False),
    "dense_compile": _dense_compiled,
    "sgc_eager": _sgc,
    "masked": _masked,
    **LOWER,
}
FLOAT32 = tuple(name for name in MAKERS if name not in LOWER)
DENSE_ENGINES = ("dense_eager", "dense_compile", "dense_onnxruntime", "dense_openvino")
