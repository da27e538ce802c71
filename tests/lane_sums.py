"""In a kernel's machine code: sums across lanes that are fused with a product.

A lane that adds its product a * b to what another lane hands it may do so in one rounding,
fma(a, b, theirs): theirs was rounded, its own was not. The other lane does the reverse, and the two
sums differ in the last bit. Triton lets all lanes store the sum in one place; which of them stays
is left to chance then (compute-sanitizer's racecheck calls it a hazard).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class MachineLine(NamedTuple):
    """One instruction: its name, the registers it writes, those it reads."""

    name: str
    written: frozenset[int]
    read: frozenset[int]


def fused_nvidia(code: str) -> int:
    """Instructions that multiply and add and read what SHFL.BFLY brought; `code` of nvdisasm."""
    return _fused(_nvidia(code), r"SHFL\.BFLY", r"FFMA2?\b")


def fused_amd(code: str) -> int:
    """The same of AMD's assembly."""
    moves = r"v_mov_b32_dpp|ds_swizzle|ds_bpermute|v_permlane"
    return _fused(_amd(code), moves, r"v_(?:pk_)?(?:fma|fmac|mac|mad)_") + len(
        re.findall(r"\bv_(?:fma|fmac|mac|mad)_f32\w*_dpp\b", code)
    )


def _fused(lines: Iterator[MachineLine], moves: str, fuses: str) -> int:
    # in the order in which they stand: both are in one basic block
    brought: set[int] = set()
    found = 0
    for line in lines:
        found += bool(re.match(fuses, line.name) and line.read & brought)
        brought -= line.written
        if re.match(moves, line.name):
            brought |= line.written
    return found


def _nvidia(code: str) -> Iterator[MachineLine]:
    for name, words in re.findall(r"\*/\s+(?:@!?U?P\d+ )?([A-Z][\w.]*) ([^;]*);", code):
        operands = [word.strip() for word in words.split(",")]
        if name.startswith("SHFL"):
            operands = operands[1:]  # before it stands whether there was such a lane
        first = re.match(r"R(\d+)", operands[0])
        wide = 1
        if re.search(r"\.128\b", name) or "MMA" in name:
            wide = 4
        elif re.search(r"\.64\b|\.WIDE\b|^CS2R$|^F(?:ADD|MUL|FMA)2\b", name):
            wide = 2
        written = range(int(first[1]), int(first[1]) + wide) if first else ()
        reads = operands[1:] if first else operands
        named = [(int(n), word) for word in reads for n in re.findall(r"\bR(\d+)", word)]
        read = (n + more for n, word in named for more in range(2 if "F32x2" in word else 1))
        yield MachineLine(name, frozenset(written), frozenset(read))


def _amd(code: str) -> Iterator[MachineLine]:
    for name, words in re.findall(r"^\s+([a-z]+_\w+) +(.*)$", code, re.MULTILINE):
        operands = [_vector_registers(word) for word in words.split(",")]
        stores = "store" in name or name.startswith("ds_write")
        written = frozenset() if stores else operands[0]
        accumulates = re.match(r"v_(?:pk_)?(?:fmac|mac)_", name)
        reads = operands if stores or accumulates else operands[1:]
        yield MachineLine(name, written, frozenset().union(*reads))


def _vector_registers(word: str) -> frozenset[int]:
    spans = re.findall(r"\bv\[(\d+):(\d+)\]", word)
    found = {int(n) for n in re.findall(r"\bv(\d+)\b", word)}
    return frozenset(found.union(*(range(int(a), int(b) + 1) for a, b in spans)))
