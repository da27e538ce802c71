"""`key=a,b` and `seed=0..2` -> the trials of a sweep, in a fixed order."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dgc.errors import UsageError

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
MAX_TRIALS = 10_000


@dataclass(frozen=True)
class Axis:
    """One swept key and its values, as texts of overrides."""

    key: str
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """`optim.lr=0.05,0.1` or `seed=0..2` (both ends included); a comma inside [...] separates nothing. UsageError."""
    key, equals, given = text.partition("=")
    if not equals or not key or not given:
        raise UsageError(f"{text!r}: write a swept key as key=value,value or key=first..last, as optim.lr=0.05,0.1")
    values = tuple(itertools.chain.from_iterable(_expand(part, text) for part in split_outside_brackets(given)))
    repeated = [value for value in values if values.count(value) > 1]
    if repeated:
        raise UsageError(f"{text!r}: {repeated[0]} stands twice, so two trials would be the same")
    return Axis(key, values)


def split_outside_brackets(text: str) -> list[str]:
    """Split at commas that stand in no [...]; an empty part is an error."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if not all(part.strip() for part in parts):
        raise UsageError(f"{text!r}: an empty value between commas")
    return [part.strip() for part in parts]


def _expand(part: str, text: str) -> Iterator[str]:
    found = _RANGE.fullmatch(part)
    if not found:
        yield part
        return
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MAX_TRIALS:
        raise UsageError(f"{text!r}: {part} should go up, over at most {MAX_TRIALS:,} values")
    yield from map(str, range(first, last + 1))


def trials(axes: Sequence[Axis]) -> list[list[str]]:
    """All combinations as lists of overrides; the last axis turns fastest. Raises UsageError."""
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"{key} is swept twice: give all its values at once, as {key}=a,b")
    combinations = list(itertools.product(*(axis.values for axis in axes)))
    if len(combinations) > MAX_TRIALS:
        raise UsageError(f"{len(combinations):,} trials: at most {MAX_TRIALS:,} fit into one sweep")
    return [[f"{key}={value}" for key, value in zip(keys, values, strict=True)] for values in combinations]
