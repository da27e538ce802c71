"""Several programs in one block: constants that are equal are held once. No torch."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dgc.kernels.cpu.block import LINE, Bytes, ops_of, program_of
from dgc.kernels.cpu.structs import CONSTANTS, IMAGES, LAYOUTS, Op, Program


def merge(blocks: Sequence[Bytes]) -> tuple[Bytes, list[int]]:
    """One block, and where each program lies in it."""
    pieces: list[bytes] = []
    end = _up(len(blocks) * ctypes.sizeof(Program))
    first = end
    held: dict[bytes, int] = {}
    programs: list[Program] = []
    for block in blocks:
        program, ops = program_of(block), ops_of(block)
        moved = {}
        # by their bytes: programs of one network for several image sizes have the same weights
        for start, stop in _constants(program, ops):
            data = block[start:stop].tobytes()
            digest = hashlib.blake2b(data).digest()
            if digest not in held:
                held[digest] = end
                pieces.append(data.ljust(_up(len(data)), b"\0"))
                end += len(pieces[-1])
            moved[start] = held[digest]
        listed = bytes((Op * len(ops))(*(_moved(op, moved) for op in ops)))
        program.ops = end
        pieces.append(listed.ljust(_up(len(listed)), b"\0"))
        end += len(pieces[-1])
        programs.append(program)
    head = b"".join(bytes(p) for p in programs).ljust(first, b"\0")
    places = [i * ctypes.sizeof(Program) for i in range(len(blocks))]
    return np.frombuffer(b"".join([head, *pieces]), np.uint8), places


def _up(n: int) -> int:
    return -(-n // LINE) * LINE


def _constants(program: Program, ops: Sequence[Op]) -> list[tuple[int, int]]:
    """Where the constants that operations name begin and end: each reaches to the next one."""
    # operations say where a constant begins, not how long it is
    starts = {getattr(op, name) for op in ops for name in CONSTANTS}
    starts |= {getattr(op, name).mask for op in ops for name in IMAGES + LAYOUTS}
    ordered = [*sorted(starts - {0}), program.ops]
    return list(pairwise(ordered))


def _moved(op: Op, moved: dict[int, int]) -> Op:
    for name in CONSTANTS:
        if place := getattr(op, name):
            setattr(op, name, moved[place])
    for name in IMAGES + LAYOUTS:
        if place := getattr(op, name).mask:
            getattr(op, name).mask = moved[place]
    return op
