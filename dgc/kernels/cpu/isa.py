"""Which instruction set the kernels use: what DGC_NATIVE_ISA may say, held against what the machine
has.

DGC_NATIVE_ISA=avx2            this level, with all of its features that the machine has
DGC_NATIVE_ISA=avx512,-vnni    without one of them; -vnni alone leaves the level to choose
DGC_NATIVE_ISA=avx512,bf16     this feature must be there
DGC_NATIVE_ISA=none            no kernels: plain PyTorch
"""

from __future__ import annotations

import difflib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from dgc.errors import UsageError

VARIABLE = "DGC_NATIVE_ISA"
NONE = "none"
FEATURES = ("vnni", "bf16", "amx")  # in the order of the library's bits
ALL_LEVELS = ("baseline", "avx2", "avx512", "neon")
ARM64 = platform.machine().lower() in ("arm64", "aarch64")
# In the library's order. arm64 has one; records made before it had this name say "baseline".
LEVELS = ("neon",) if ARM64 else ("baseline", "avx2", "avx512")
_OLD_NAMES = {"baseline": "neon"} if ARM64 else {}


@dataclass(frozen=True)
class Choice:
    """An index into LEVELS, and the features on top of that level that may be used."""

    index: int
    features: tuple[str, ...]

    @property
    def level(self) -> str:
        return LEVELS[self.index]


@dataclass(frozen=True)
class _Words:
    """What the variable says: a level or none named,
    features that must be there, features to leave alone.
    """

    level: str | None
    wanted: tuple[str, ...]
    without: tuple[str, ...]


def check(text: str) -> None:
    """Raise UsageError for a word that is unknown, whatever this machine has."""
    _read(text)


def choose(text: str, machine: Mapping[str, Sequence[str]]) -> Choice | None:
    """What to use on a machine with these levels (each with its features);
    None: no kernels are wanted.

    Raises UsageError for a word that is unknown, or that names what this machine lacks.
    """
    words = _read(text)
    if words.level == NONE:
        return None
    # the last level is the widest that both the machine and the library have
    level = words.level or list(machine)[-1]
    if level not in machine:
        raise UsageError(f"{VARIABLE}={text}: this machine has {', '.join(machine)}")
    for feature in words.wanted:
        if feature not in machine[level]:
            has = ", ".join(machine[level]) or "none of these features"
            raise UsageError(
                f"{VARIABLE}={text}: {level} has no {feature} on this machine (it has {has})"
            )
    # in the order of the library's bits, whatever the order in the variable
    features = tuple(name for name in machine[level] if name not in words.without)
    return Choice(LEVELS.index(level), features)


@cache
def _read(text: str) -> _Words:
    words = [word.strip() for word in text.split(",") if word.strip()]
    # before anything is compared: records and scripts from before the rename go on working
    names = [_OLD_NAMES.get(word, word) for word in words if not word.startswith("-")]
    without = [word.removeprefix("-") for word in words if word.startswith("-")]
    levels = [name for name in names if name in (*ALL_LEVELS, NONE)]
    wanted = [name for name in names if name not in levels]
    for word in (*wanted, *without):
        if word not in FEATURES:
            raise UsageError(f"{VARIABLE}={text}: {_unknown(word)}")
    if len(levels) > 1:
        raise UsageError(f"{VARIABLE}={text}: one level at most, given {' and '.join(levels)}")
    if both := set(wanted) & set(without):
        # a wish that contradicts itself is a slip of the user's, not a choice for us to make
        raise UsageError(f"{VARIABLE}={text}: {min(both)} is asked for and left out")
    return _Words(levels[0] if levels else None, tuple(wanted), tuple(without))


def _unknown(word: str) -> str:
    known = [*ALL_LEVELS, NONE, *FEATURES]
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    hint = f" (did you mean {near[0]}?)" if near else ""
    levels, features = ", ".join([*ALL_LEVELS, NONE]), ", ".join(FEATURES)
    return (
        f"unknown word {word!r}{hint}: levels are {levels}; features {features}, or -vnni to leave"
        " one out"
    )
