"""`key=a,b`, `seed=0..2` and `lr=log:0.01..0.3:4` -> the trials of a sweep, in a fixed order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dgc.errors import UsageError
from dgc.recipe import yaml12
from dgcctl.core.sweep.ranges import parse_range

MAX_TRIALS = 10_000


@dataclass(frozen=True)
class Axis:
    """One swept key and its values, as texts of overrides."""

    key: str
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """`optim.lr=0.05,0.1`, `seed=0..2` (both ends included), `model.gate_factor=0.25..0.75:0.25`
    with a step, or `optim.lr=log:0.01..0.3:4`, four values of even ratios. UsageError.

    A comma separates values, except inside [...], {...} and quotes, and after a backslash.
    """
    key, equals, given = text.partition("=")
    if not equals or not key or not given:
        raise UsageError(
            f"{text!r}: write a swept key as key=value,value or key=first..last, as"
            " optim.lr=0.05,0.1"
        )
    # ranges are written out, so that a list may hold both
    values = tuple(itertools.chain.from_iterable(_expand(part) for part in split_values(given)))
    seen: dict[Any, str] = {}
    for value in values:
        meaning = _meaning(value)
        if (first := seen.get(meaning)) is not None:
            what = (
                f"{value} stands twice"
                if value == first
                else f"{first} and {value} are the same value"
            )
            raise UsageError(f"{text!r}: {what}, so two trials would be the same")
        seen[meaning] = value
    return Axis(key, values)


def _meaning(value: str) -> Any:
    """What a value means, so that 0.1, 0.10 and 1e-1 are one; text that is no YAML stands for
    itself.
    """
    document = yaml12.load(value, value)
    # by its meaning: what a recipe would read is what makes two trials equal
    return ("text", value) if document.problems else _comparable(document.tree)


def _comparable(tree: Any) -> Any:
    if isinstance(tree, dict):
        return ("mapping", tuple(sorted((key, _comparable(item)) for key, item in tree.items())))
    if isinstance(tree, list | tuple):
        return ("list", tuple(_comparable(item) for item in tree))
    # a kind beside each value: to Python True is 1, in a recipe it is not
    kind = (
        "number"
        if isinstance(tree, int | float) and not isinstance(tree, bool)
        else type(tree).__name__
    )
    return (kind, tree)


def split_values(text: str) -> list[str]:
    r"""Split at commas outside [...], {...} and quotes; a comma after a backslash belongs to the
    value.
    """
    parts = _Splitter(text).parts()
    if not all(part.strip() for part in parts):
        raise UsageError(f"{text!r}: an empty value between commas")
    return [part.strip() for part in parts]


class _Splitter:
    """Reads a list of values as YAML would: a quote opens only where a value begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.done: list[str] = []
        self.part, self.closing, self.quote, self.closed = "", "", "", ""

    def parts(self) -> list[str]:
        characters = iter(self.text)
        for character in characters:
            if self.quote:
                self._quoted(character, characters)
            # a backslash inside brackets is YAML's own
            elif character == "\\" and not self.closing:
                following = next(characters, "")
                self.part += following if following == "," else character + following
            elif character == "," and not self.closing:
                self.done.append(self.part)
                self.part = ""
            else:
                self._plain(character)
        if self.quote or self.closing:
            raise UsageError(
                f"{self.text!r}: {self.quote or self.closing[-1]} is missing at the end of a value"
            )
        return [*self.done, self.part]

    def _quoted(self, character: str, characters: Iterator[str]) -> None:
        self.part += character
        if character == "\\" and self.quote == '"':
            self.part += next(characters, "")
        elif character == self.quote:
            self.quote, self.closed = "", character

    def _plain(self, character: str) -> None:
        # a quote in the middle of a value is a letter, as YAML has it
        begins = not self.part.strip() or self.part.rstrip()[-1] in "[{,:"
        doubled = character == "'" == self.closed  # YAML's '' inside '...'
        self.closed = ""
        if doubled or (character in "'\"" and begins):
            self.quote = character
        # a bracket opens where a value begins; within others it may stand anywhere
        elif character in "[{" and (begins or self.closing):
            self.closing += "]" if character == "[" else "}"
        elif self.closing and character == self.closing[-1]:
            self.closing = self.closing[:-1]
        self.part += character


def _expand(part: str) -> list[str]:
    found = parse_range(part)
    return [part] if found is None else found.values()


def trials(axes: Sequence[Axis]) -> list[list[str]]:
    """All combinations as lists of overrides; the last axis turns fastest. Raises UsageError."""
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"{key} is swept twice: give all its values at once, as {key}=a,b")
    combinations = list(itertools.product(*(axis.values for axis in axes)))
    if len(combinations) > MAX_TRIALS:
        raise UsageError(f"{len(combinations):,} trials: at most {MAX_TRIALS:,} fit into one sweep")
    return [
        [f"{key}={value}" for key, value in zip(keys, values, strict=True)]
        for values in combinations
    ]
