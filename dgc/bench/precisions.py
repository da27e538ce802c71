"""The network in 8 bits, and its dense twin in the lower precisions of other engines: what somebody
who wants speed on a CPU would pick.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgc.bench.networks import build
from dgc.infer import compile_for_inference

Call = Callable[[], object]
CALIBRATION = 16  # images (noise, as everything here): speed does not depend on the scales


def as_onnx(name: str, x: Tensor) -> bytes:
    """The dense network as ONNX for exactly this batch."""
    return onnx_of(build(name, "dense"), x)


def onnx_of(model: nn.Module, x: Tensor) -> bytes:
    """The network as an ONNX file. Raises ImportError without the package onnx."""
    import_module("onnx")  # PyTorch exports with it, and says it is missing by an error of its own
    out = io.BytesIO()
    torch.onnx.export(model, (x,), out, dynamo=False, input_names=["x"], output_names=["y"])  # type: ignore[arg-type]
    return out.getvalue()


def native_int8(name: str, x: Tensor, threads: int) -> Call:
    model = compile_for_inference(build(name, "dgc"), precision="int8")

    def call() -> object:
        with torch.inference_mode():
            return model(x)

    return call


def dense_eager_bf16(name: str, x: Tensor, threads: int) -> Call:
    """PyTorch with weights and images in bfloat16, in the memory format that suits it best."""
    model = build(name, "dense").to(torch.bfloat16).to(memory_format=torch.channels_last)
    x = x.to(torch.bfloat16, memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return model(x)

    return call


def _noise(x: Tensor) -> Iterator[Any]:
    random = torch.Generator().manual_seed(0)
    for _ in range(max(1, CALIBRATION // len(x))):
        yield torch.randn(x.shape, generator=random).numpy()


def openvino(precision: str, *, quantised: bool) -> Callable[[str, Tensor, int], Call]:
    """OpenVINO with this precision where nothing is quantised;
    `quantised` by NNCF, after training.
    """

    def make(name: str, x: Tensor, threads: int) -> Call:
        return openvino_call(as_onnx(name, x), x, threads, precision, quantised=quantised)

    return make


def openvino_call(
    onnx: bytes, x: Tensor, threads: int, precision: str = "f32", *, quantised: bool = False
) -> Call:
    import openvino

    core = openvino.Core()
    model = core.read_model(io.BytesIO(onnx))
    if quantised:
        model = _nncf(model, x)
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    feed = {0: x.numpy()}
    return lambda: request.infer(feed)


def _nncf(model: Any, x: Tensor) -> Any:
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    images = list(_noise(x))
    with _silent():  # it draws progress on stdout, where the table goes
        return nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))


@contextmanager
def _silent() -> Iterator[None]:
    # The descriptor and not sys.stdout: what is drawn may come from C++.
    kept = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def dense_onnxruntime_int8(name: str, x: Tensor, threads: int) -> Call:
    """Statically quantised by ONNX Runtime's own tool: operators in QDQ form, weights a channel."""
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, quantised = (str(Path(folder) / f"{n}.onnx") for n in "abc")
        Path(plain).write_bytes(as_onnx(name, x))
        shape_inference.quant_pre_process(plain, prepared)
        quantization.quantize_static(
            prepared, quantised, _Reader(x), quant_format=quantization.QuantFormat.QDQ,
            per_channel=True, activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(
            quantised, options, providers=["CPUExecutionProvider"]
        )
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed)


class _Reader:
    """What the calibration reads."""

    def __init__(self, x: Tensor) -> None:
        self._images = _noise(x)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self._images, None)
        return None if image is None else {"x": image}


LOWER: dict[str, Callable[[str, Tensor, int], Call]] = {
    "native_int8": native_int8,
    "dense_eager_bf16": dense_eager_bf16,
    "dense_onnxruntime_int8": dense_onnxruntime_int8,
    "dense_openvino_bf16": openvino("bf16", quantised=False),
    "dense_openvino_int8": openvino("f32", quantised=True),
    "dense_openvino_int8_bf16": openvino("bf16", quantised=True),
}
# what takes turns where 8 bits are asked for: the fastest in float32 is among them
ANY_PRECISION = ("native", *LOWER, "dense_eager", "dense_openvino")
DENSE_LOWER = tuple(name for name in LOWER if name.startswith("dense"))
