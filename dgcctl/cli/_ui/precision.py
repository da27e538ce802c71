"""What the native engine computes in, as commands take it."""

from __future__ import annotations

import enum


class Precision(enum.StrEnum):
    """A precision of `dgc.compile_for_inference`."""

    FLOAT32 = "float32"
    INT8 = "int8"
