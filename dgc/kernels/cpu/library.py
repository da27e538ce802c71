"""Finding and loading the compiled kernels. Everything here answers "why not" in one line instead
of failing.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dgc.errors import IntegrityError, UsageError
from dgc.kernels.cpu.isa import FEATURES, LEVELS, NONE, VARIABLE, Choice, check, choose
from dgc.kernels.cpu.structs import Answer, Op, Run, Train
from dgc.kernels.sources import built_from, library_of, sources_digest

ABI_VERSION = 8
FORCE = VARIABLE
ELSEWHERE = "DGC_NATIVE_LIBRARY"  # another build of the library: the sanitizers' tests

_DAMAGED = {
    Answer.BAD_BLOCK: "a native program does not lie whole inside its block of {block} bytes",
    Answer.BAD_WORKSPACE: "a native program needs more than its workspace of {room} numbers",
}


@dataclass(frozen=True)
class Library:
    """The loaded library and the instruction set that is used."""

    handle: ctypes.CDLL
    path: Path
    choice: Choice

    @property
    def isa(self) -> int:
        """The instruction set as the library's calls take it."""
        return self.choice.index

    @property
    def feature_bits(self) -> int:
        """The features that may be used, as the library's calls take them."""
        return sum(1 << FEATURES.index(name) for name in self.choice.features)

    def run(self, run: Run) -> None:
        """Raises UsageError for an instruction set that the machine lacks, IntegrityError for a
        program that does not fit its block or its workspace.
        """
        answer = Answer(self.handle.dgc_run(ctypes.byref(run), self.isa))
        if answer == Answer.NO_SUCH_ISA:
            raise UsageError(
                f"this machine cannot execute the {self.choice.level} kernels; unset {FORCE}"
            )
        if answer != Answer.DONE:
            raise IntegrityError(
                _DAMAGED[answer].format(block=run.block_bytes, room=run.workspace_floats)
            )

    def peak(self) -> float:
        """Measured multiply-adds per second of one core
        with all operands in registers, in GMAC/s.
        """
        self.handle.dgc_peak.restype = ctypes.c_double
        return float(self.handle.dgc_peak(self.isa)) / 1e9


@cache
def _open() -> tuple[ctypes.CDLL | None, Path | None, str]:
    """(library, its file, why not)."""
    named = os.environ.get(ELSEWHERE)
    path = Path(named) if named else library_of(Path(__file__).parents[2])
    # no library is no error: plain PyTorch computes the same, in more time
    if path is None:
        return (
            None,
            None,
            "the kernels were not built (no C++ compiler at installation?); plain PyTorch is used",
        )
    try:
        import torch  # noqa: F401  its OpenMP library is loaded first, so that ours resolves to the same thread pool

        handle = ctypes.CDLL(str(path))
        found = (handle.dgc_abi_version(), handle.dgc_op_size(), handle.dgc_train_size())
    except (OSError, AttributeError) as e:
        return None, path, f"{path.name} cannot be loaded: {e}; plain PyTorch is used"
    # before any structure is handed over: a library of another version would read other fields
    wanted = (ABI_VERSION, ctypes.sizeof(Op), ctypes.sizeof(Train))
    if found != wanted:
        return (
            None,
            path,
            f"{path.name} is of another version {found}, {wanted} is wanted; install dgcctl again",
        )
    return handle, path, ""


@cache
def _machine(handle: ctypes.CDLL) -> dict[str, tuple[str, ...]]:
    """Each level that this machine and the library have, narrow to wide, with its features."""
    levels = [(index, name) for index, name in enumerate(LEVELS) if handle.dgc_supports(index)]
    return {name: _features(handle, index) for index, name in levels}


def _features(handle: ctypes.CDLL, index: int) -> tuple[str, ...]:
    try:
        bits = int(handle.dgc_features(index))
    except AttributeError:  # a library from before features were told
        return ()
    return tuple(name for bit, name in enumerate(FEATURES) if bits >> bit & 1)


@cache
def _chosen(handle: ctypes.CDLL, text: str) -> Choice | None:
    return choose(text, _machine(handle))


def load() -> Library | None:
    """The library with the instruction set to use now,
    or None where there is none or none is wanted.

    Raises UsageError if the environment variable DGC_NATIVE_ISA says what cannot be.
    """
    handle, path, _ = _open()
    if handle is None or path is None:
        # a misspelt variable is told also where there is nothing to choose from
        check(os.environ.get(FORCE, ""))
        return None
    choice = _chosen(handle, os.environ.get(FORCE, ""))
    return None if choice is None else Library(handle, path, choice)


_REGISTERS: ContextVar[int] = ContextVar("registers", default=0)


@contextmanager
def made_for(registers: int) -> Iterator[None]:
    """Within it plans are made as on a machine with so many vector registers."""
    token = _REGISTERS.set(registers)
    try:
        yield
    finally:
        _REGISTERS.reset(token)


def many_registers() -> bool:
    """True if the kernels in use count on 32 vector registers (AVX-512, arm64), not on 16."""
    if _REGISTERS.get():
        return _REGISTERS.get() >= 32
    loaded = load()
    return loaded is not None and int(loaded.handle.dgc_registers(loaded.isa)) >= 32


def available() -> bool:
    """True if the compiled kernels are there and fit this machine."""
    return load() is not None


def in_use() -> str:
    """The instruction set of the kernels that compute now, or 'none';
    results differ between them in the last bits.

    Features on top of it are not part of the name, since no kernel uses one: see `facts`.
    """
    loaded = load()
    return NONE if loaded is None else loaded.choice.level


def facts() -> dict[str, object]:
    """For records: kernels, kernel_features (may be used on top),
    kernels_built_from (sources, flags, compiler).
    """
    loaded = load()
    if loaded is None:
        return {"kernels": NONE}
    built = built_from(loaded.path)
    return {
        "kernels": loaded.choice.level,
        "kernel_features": list(loaded.choice.features),
        "kernels_built_from": str(built) if built else "not said",
    }


def stale() -> str:
    """A line where the kernels in use were built
    from other sources than those that lie beside them; else "".
    """
    loaded, package = load(), Path(__file__).parents[2]
    sources = sources_digest(package)
    if loaded is None or sources is None or loaded.path != library_of(package):
        return ""
    built = built_from(loaded.path)
    if built is not None and built.digest == sources:
        return ""
    return (
        f"{loaded.path.name} was built from other sources than those beside it: `pip install -e .`"
        " builds it again"
    )


def describe() -> dict[str, object]:
    """What is used and why: {available, isa, features, supported,
    machine_features, openmp, threads, ..., why_not}.

    Raises UsageError as `load` does.
    """
    handle, path, why_not = _open()
    loaded = load()
    if handle is not None and loaded is None:
        why_not = f"{FORCE}={NONE} asks for plain PyTorch"
    found: dict[str, object] = {
        "available": loaded is not None,
        "machine": platform.machine(),
        "path": str(path) if path else None,
        "why_not": why_not or None,
    }
    if handle is None:
        return found
    import torch

    machine = _machine(handle)
    found |= {
        "supported": list(machine),
        "machine_features": list(
            dict.fromkeys(name for features in machine.values() for name in features)
        ),
        "stale": stale() or None,
        "openmp": bool(handle.dgc_has_openmp()),
        "threads": torch.get_num_threads(),
    }
    if loaded is not None:
        found |= {"isa": loaded.choice.level, "features": list(loaded.choice.features)}
    return found
