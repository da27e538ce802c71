"""Finding and loading the compiled kernels. Everything here answers "why not" in one line instead of failing."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dgc.errors import UsageError
from dgc.kernel_sources import library_of
from dgc.native.structs import Op, Run, Train

ABI_VERSION = 2
ISA_NAMES = ("baseline", "avx2", "avx512")
FORCE = "DGC_NATIVE_ISA"
ELSEWHERE = "DGC_NATIVE_LIBRARY"  # another build of the library: the sanitizers' tests


@dataclass(frozen=True)
class Library:
    """The loaded library and the instruction set that is used: an index into ISA_NAMES."""

    handle: ctypes.CDLL
    path: Path
    isa: int

    def run(self, run: Run) -> None:
        if self.handle.dgc_run(ctypes.byref(run), self.isa):
            raise UsageError(f"this machine cannot execute the {ISA_NAMES[self.isa]} kernels; unset {FORCE}")

    def peak(self) -> float:
        """Measured multiply-adds per second of one core with all operands in registers, in GMAC/s."""
        self.handle.dgc_peak.restype = ctypes.c_double
        return float(self.handle.dgc_peak(self.isa)) / 1e9


@cache
def _open() -> tuple[ctypes.CDLL | None, Path | None, str]:
    """(library, its file, why not)."""
    named = os.environ.get(ELSEWHERE)
    path = Path(named) if named else library_of(Path(__file__).parents[1])
    if path is None:
        return None, None, "the kernels were not built (no C++ compiler at installation?); plain PyTorch is used"
    try:
        import torch  # noqa: F401  its OpenMP library is loaded first, so that ours resolves to the same thread pool

        handle = ctypes.CDLL(str(path))
        found = (handle.dgc_abi_version(), handle.dgc_op_size(), handle.dgc_train_size())
    except (OSError, AttributeError) as e:
        return None, path, f"{path.name} cannot be loaded: {e}; plain PyTorch is used"
    wanted = (ABI_VERSION, ctypes.sizeof(Op), ctypes.sizeof(Train))
    if found != wanted:
        return None, path, f"{path.name} is of another version {found}, {wanted} is wanted; install dgcctl again"
    return handle, path, ""


def _choose(handle: ctypes.CDLL) -> int:
    """The forced instruction set, or the widest that this machine has."""
    supported = [i for i in range(len(ISA_NAMES)) if handle.dgc_supports(i)]
    forced = os.environ.get(FORCE)
    if not forced:
        return supported[-1]
    allowed = [ISA_NAMES[i] for i in supported]
    if forced not in allowed:
        raise UsageError(f"{FORCE}={forced}: this machine has {', '.join(allowed)}")
    return ISA_NAMES.index(forced)


def load() -> Library | None:
    """The library with the instruction set to use now, or None where there is none.

    Raises UsageError if the environment variable DGC_NATIVE_ISA names an instruction set that is not there.
    """
    handle, path, _ = _open()
    return None if handle is None or path is None else Library(handle, path, _choose(handle))


def many_registers() -> bool:
    """True if the kernels in use count on 32 vector registers (AVX-512, arm64), not on 16."""
    loaded = load()
    return loaded is not None and int(loaded.handle.dgc_registers(loaded.isa)) >= 32


def available() -> bool:
    """True if the compiled kernels are there and fit this machine."""
    return load() is not None


def in_use() -> str:
    """The instruction set of the kernels that compute now, or 'none'; results differ between them in the last bits."""
    loaded = load()
    return "none" if loaded is None else ISA_NAMES[loaded.isa]


def describe() -> dict[str, object]:
    """What is used and why: {available, isa, supported, openmp, threads, machine, path, why_not}."""
    handle, path, why_not = _open()
    facts: dict[str, object] = {
        "available": handle is not None,
        "machine": platform.machine(),
        "path": str(path) if path else None,
        "why_not": why_not or None,
    }
    if handle is None:
        return facts
    import torch

    return facts | {
        "isa": ISA_NAMES[_choose(handle)],
        "supported": [name for i, name in enumerate(ISA_NAMES) if handle.dgc_supports(i)],
        "openmp": bool(handle.dgc_has_openmp()),
        "threads": torch.get_num_threads(),
    }
