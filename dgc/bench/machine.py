"""What was measured on: machine, versions, peak."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path

from dgc.kernels.cpu import describe, library

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


def described() -> str:
    """One line: CPU, cores, instruction set, peak of one core, versions, date."""
    m = facts()
    return (
        f"{m['cpu']}, {m['cores']} cores, kernels {m['isa']}, peak of one core {m['peak_gmacs']}"
        f" GMAC/s; Python {m['python']}, torch {_version('torch')}, dgcctl {_version('dgcctl')};"
        f" {m['date']}"
    )


def label() -> str:
    """The machine and its instruction set as part of a file name: "amd-epyc-avx2"."""
    # Without clock and core count: the same CPU is offered in
    # several sizes, which are one machine for a file name.
    model = _model().split("@")[0].split("with")[0].lower()
    words = re.sub(r"\((r|tm)\)|\b(processor|cpu|\d+-core)\b", " ", model)
    return "-".join([*re.findall(r"[a-z0-9]+", words), str(describe().get("isa", "plain"))])


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    flags = next((line for line in _info() if line.startswith("flags")), "")
    extra = [f for f in ("avx2", "avx512f", "amx_bf16") if f" {f} " in f"{flags} "]
    kind = [f"{name} {value}" for name in ("cpu family", "model") if (value := _field(name))]
    return f"{_model()} ({', '.join(kind + extra)})"


def _model() -> str:
    return _field("model name") or platform.processor() or platform.machine()


def _field(name: str) -> str | None:
    fields = [line.split(":", 1) for line in _info() if ":" in line]
    return next((value.strip() for key, value in fields if key.strip() == name), None)


def _info() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else []
