"""What was measured on: machine, versions, peak."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from dgc.native import describe, library

PACKAGES = ("torch", "numpy", "onnxruntime", "openvino", "dgcctl")


def facts() -> dict[str, object]:
    """CPU, cores, packages, instruction set, peak of one core in GMAC/s, date (UTC)."""
    loaded = library.load()
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "isa": describe().get("isa"),
        "peak_gmacs": None if loaded is None else round(loaded.peak(), 1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    extra = [f for f in ("avx2", "avx512f", "amx_bf16") if f" {f} " in f"{flags} "]
    return f"{names[0] if names else platform.processor() or 'unknown'} ({', '.join(extra)})"
