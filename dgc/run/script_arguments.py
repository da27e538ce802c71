"""What a script hands to its run: checked, and as JSON keeps it."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgc.errors import ArgumentError
from dgc.run.plain_state import scalar

OWN = frozenset({"kind", "t", "crc", "step", "epoch", "nonfinite"})  # words of the log itself
LEVELS = ("info", "warning", "error")


def seed_of(seed: int | None, config: Mapping[str, Any]) -> int:
    """One seed, wherever it stands: two would be listed as one, and runs averaged by the wrong."""
    given = config.get("seed")
    if given is None:
        return seed or 0
    if isinstance(given, bool) or not isinstance(given, int):
        raise ArgumentError(f"config.seed is {given!r}: give a whole number, or name it otherwise")
    if seed not in (None, given):
        raise ArgumentError(f"seed is {seed} and config.seed {given}: give one of them")
    return given


def plain(value: Any, where: str) -> Any:
    """As JSON keeps it; a tuple is a list. What is no number to JSON (inf, nan) is its text."""
    value = scalar(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        # JSON would turn 1 and "1" into one key without a word
        if odd := next((key for key in value if not isinstance(key, str)), None):
            raise ArgumentError(f"{where}: {odd!r} is no text, and names of values are")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    raise ArgumentError(
        f"{where} is a {type(value).__name__}: give numbers, texts, lists, and mappings of them"
    )


def whole(number: Any, call: str) -> int:
    """A step or an epoch; NumPy's integers and tensors of one are as good."""
    try:
        found = -1 if isinstance(number, bool) else operator.index(number)
    except TypeError:
        found = -1
    if 0 <= found < 1 << 63:
        return found
    how = (
        ""
        if call.startswith("checkpoint")
        else ": write the step first, then figures by name, as run.log(10, loss=0.5)"
    )
    raise ArgumentError(f"run.{call}{number!r}) is no whole number from 0 on{how}")


def figures_of(given: Mapping[str, Any]) -> dict[str, float]:
    """Numbers as JSON keeps them. Raises ArgumentError for what is none."""
    found = {}
    for name, value in given.items():
        if name in OWN:
            raise ArgumentError(f"{name!r} is a word of the log itself: call the figure otherwise")
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ArgumentError(f"{name} = {value!r} is no number") from error
        # whole numbers stay whole, for those who compare runs
        short = isinstance(value, int) and abs(value) < 1 << 63
        found[name] = int(value) if short and not isinstance(value, bool) else number
    return found
