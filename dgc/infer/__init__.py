"""Inference: a trained network as one program for the native kernels."""

from __future__ import annotations

from dgc.infer.compile import NativeModule, compile_for_inference
from dgc.infer.plan_file import save_plan

__all__ = ["NativeModule", "compile_for_inference", "save_plan"]
