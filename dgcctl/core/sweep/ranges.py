"""Ranges of numbers on the command line: `0..2`, `0.25..0.75:0.25`, `log:0.01..0.3:4`.

Nothing in them is read by a shell. What follows the last colon is the step; of a `log:` range,
whose values have even ratios and no even step, it is how many values there are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from dgc.errors import UsageError

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})(?::([^:]*))?")
MAX_VALUES = 10_000


@dataclass(frozen=True)
class Range:
    """Numbers from `first` to `last`, both in. `step` of a log range: how many values."""

    first: Decimal
    last: Decimal
    step: Decimal | None
    log: bool
    text: str

    @property
    def whole(self) -> bool:
        """Whether all its values are integers."""
        return not self.log and all(
            map(_is_whole, (self.first, self.last, self.step or Decimal(1)))
        )

    def values(self) -> list[str]:
        """All its values as texts. UsageError where it has no end of them."""
        if self.log:
            return self._even_ratios()
        step = self.step or (Decimal(1) if self.whole else None)
        if step is None:
            raise UsageError(
                f"{self.text!r}: a range of fractions has no next value: give a step, as"
                f" {self.text}:{_told((self.last - self.first) / 4)} (`dgcctl search` needs none)"
            )
        count = int((self.last - self.first) / step) + 1
        self._require_bounded(count)
        return [_told(self.first + step * index) for index in range(count)]

    def _even_ratios(self) -> list[str]:
        count = int(self.step or 0)
        if count < 2 or self.step != count:
            raise UsageError(
                f"{self.text!r}: say how many values, at least 2, as"
                f" log:{_told(self.first)}..{_told(self.last)}:4 (`dgcctl search` needs none)"
            )
        self._require_bounded(count)
        ratio = float(self.last / self.first) ** (1 / (count - 1))
        between = [f"{float(self.first) * ratio**index:.4g}" for index in range(1, count - 1)]
        return [_told(self.first), *between, _told(self.last)]

    def _require_bounded(self, count: int) -> None:
        if count > MAX_VALUES:
            raise UsageError(f"{self.text!r}: {count:,} values, at most {MAX_VALUES:,} may be")


def parse_range(text: str) -> Range | None:
    """The range that a text says; None where it is another value. UsageError for one that goes
    down, or with a step that is none.
    """
    found = _RANGE.fullmatch(text)
    if not found:
        if text.startswith("log:") and ".." in text:
            raise UsageError(f"{text!r}: is no range: write it as log:0.01..0.3")
        return None
    first, last = Decimal(found[2]), Decimal(found[3])
    if first > last:
        end = f":{found[4]}" if found[4] is not None else ""
        raise UsageError(
            f"{text!r}: goes down: the smaller number comes first, as"
            f" {found[1] or ''}{found[3]}..{found[2]}{end}"
        )
    step = _step(found[4], text)
    if found[1] and first <= 0:
        raise UsageError(f"{text!r}: a log range begins above 0")
    return Range(first, last, step, bool(found[1]), text)


def _step(word: str | None, text: str) -> Decimal | None:
    if word is None:
        return None
    if not re.fullmatch(_NUMBER, word) or Decimal(word) <= 0:
        raise UsageError(f"{text!r}: {word or 'nothing'} is no step: write it as 0.25..0.75:0.25")
    return Decimal(word)


def _is_whole(number: Decimal) -> bool:
    """Written without a point, as seeds are: 1.0 stays a fraction."""
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= 0


def _told(number: Decimal) -> str:
    """Without a needless end: 0.5 and not 0.50."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
