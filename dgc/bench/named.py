"""What a contender's name says of it, in the fields of a row."""

from __future__ import annotations

from typing import Any

# name of a contender -> (variant, engine, precision, what else is told of it)
NAMED: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "native": ("dgc", "native", "float32", {}),
    "dgc": ("dgc", "native", "float32", {}),
    "dgc_bf16": ("dgc", "plain", "bf16", {}),
    "plain": ("dgc", "plain", "float32", {}),
    "masked": ("dgc", "masked", "float32", {}),
    "native_int8": ("dgc", "native", "int8", {}),
    "dense_eager_bf16": ("dense", "eager", "bf16", {"memory_format": "channels_last"}),
    "dense_onnxruntime_int8": ("dense", "onnxruntime", "int8", {}),
    "dense_openvino_bf16": ("dense", "openvino", "bf16", {}),
    "dense_openvino_int8": ("dense", "openvino", "int8", {}),
    "dense_openvino_int8_bf16": ("dense", "openvino", "int8", {"rest": "bf16"}),
    "dense": ("dense", "eager", "float32", {}),
    "dense_eager": ("dense", "eager", "float32", {}),
    "dense_compile": ("dense", "compile", "float32", {}),
    "dense_compiled": ("dense", "compile", "float32", {}),
    "dense_onnxruntime": ("dense", "onnxruntime", "float32", {}),
    "dense_openvino": ("dense", "openvino", "float32", {}),
    "dense_channels_last": ("dense", "eager", "float32", {"memory_format": "channels_last"}),
    "dense_bf16": ("dense", "eager", "bf16", {}),
    "dense_bf16_channels_last": ("dense", "eager", "bf16", {"memory_format": "channels_last"}),
    "sgc_eager": ("sgc", "eager", "float32", {}),
}


def contender(name: str) -> dict[str, Any]:
    """The fields of a row that follow from a contender's name."""
    variant, engine, precision, more = NAMED.get(name, ("", name, "float32", {}))
    return {
        "name": name, "variant": variant, "engine": engine, "precision": precision,
        "more": dict(more),
    }  # fmt: skip
