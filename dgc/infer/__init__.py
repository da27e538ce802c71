"""Inference: a trained network as one program for the native kernels."""

from __future__ import annotations

from dgc.infer.compile import NativeModule, check_choice, compile_for_inference
from dgc.infer.native_share import explain_inference
from dgc.infer.plan_file import save_plan
from dgc.infer.precision import compare_precisions

__all__ = [
    "NativeModule",
    "check_choice",
    "compare_precisions",
    "compile_for_inference",
    "explain_inference",
    "save_plan",
]
