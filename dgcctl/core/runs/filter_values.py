"""How a filter compares a value of a run with a word: as numbers, spans of time, dates or texts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from dgc.errors import UsageError

SPANS = ("age", "seconds", "took")  # what is measured in spans
UNIT = "s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(rf"(\d+(?:\.\d+)?)({UNIT})")
_MOMENTS = ("started", "heartbeat")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ](\d{2}:\d{2})(:\d{2})?)?Z?")
_LEAST = timedelta(microseconds=1)


def compare(value: Any, sign: str, wanted: str, key: str = "") -> bool:
    """Whether a value stands in a relation to a word; nothing compares with an absent value but
    `!=`. `=` takes lists and ranges. A date is the whole day (minute, second): `>` is after it.
    """
    if sign == "!=":
        # so that `!=` is true of what is absent: it is not equal to anything
        return not compare(value, "=", wanted, key)
    if sign == "=":
        return any(_equal(value, word, key) for word in listed(wanted))
    if sign == "~":
        return value is not None and wanted.lower() in str(value).lower()
    # An absent value is not small and not large: `top1_error<20` must not find runs that were
    # never evaluated.
    if value is None:
        return False
    ends = ends_of(wanted, key)
    if is_number(value):
        if ends is None:
            raise UsageError(f"filter: {wanted!r} is no {_kind(key)}, so nothing is {sign} it")
        return _stands(value, sign, *ends)
    return _stands(_text(value), sign, wanted, wanted)


def _stands(value: Any, sign: str, first: Any, last: Any) -> bool:
    if sign == ">":
        return bool(value > last)
    if sign == ">=":
        return bool(value >= first)
    return bool(value < first) if sign == "<" else bool(value <= last)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def listed(value: str) -> list[str]:
    """The words of a list; a list in brackets is one value, as a recipe has it."""
    return [value.replace(" ", "")] if value.startswith("[") else value.split(",")


def _equal(value: Any, word: str, key: str) -> bool:
    if value is None:
        return word in ("null", "none", "-")
    low, dots, high = word.partition("..")
    if dots and is_number(value):
        lower, upper = ends_of(low, key), ends_of(high, key)
        if lower is None or upper is None:
            example = "2026-11-20..2026-11-27" if _is_moment(key) else "0.01..0.1"
            raise UsageError(f"filter: {word!r} is no range: write it as {example}")
        if lower[0] > upper[1]:
            raise UsageError(f"filter: {word!r} is empty: the smaller end goes first")
        return bool(lower[0] <= value <= upper[1])
    ends = ends_of(word, key)
    if is_number(value) and ends is not None:
        return bool(ends[0] <= value <= ends[1])
    # as it is written in a recipe: true and not True
    return _text(value) == word


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def ends_of(text: str, key: str = "") -> tuple[float, float] | None:
    """The first and the last number that a word means: twice the number itself; of a span of time
    (`2h`) of an age or a duration its seconds; of a date (UTC) its first and last moment, in
    seconds since 1970. None of any other word.

    Raises UsageError for a date where a moment is asked for and none is meant by it.
    """
    try:
        return float(text), float(text)
    except ValueError:
        # not a number; perhaps a span or a date, where such a key is asked for
        pass
    if (span := _SPAN.fullmatch(text)) and key.rpartition(".")[2] in SPANS:
        seconds = float(span[1]) * _UNITS[span[2][0]]
        return seconds, seconds
    if _is_moment(key) and re.match(r"\d+[-/.]", text):
        return _moments(text)
    return None


def _moments(text: str) -> tuple[float, float]:
    """The first and the last moment of a day, a minute or a second."""
    try:
        found = _DATE.fullmatch(text)
        if found is None:
            raise ValueError(text)
        # UTC, as everything that is shown
        first = datetime.fromisoformat(text.rstrip("Z")).replace(tzinfo=UTC)
        unit = "seconds" if found[2] else "minutes" if found[1] else "days"
        return first.timestamp(), (first + timedelta(**{unit: 1}) - _LEAST).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"filter: {text!r} is no date: write 2026-11-27, 2026-11-27T10:15 or"
            " 2026-11-27T10:15:30 (UTC)"
        ) from None


def _is_moment(key: str) -> bool:
    return key.rpartition(".")[2] in _MOMENTS


def _kind(key: str) -> str:
    return "date (write 2026-11-27 or 2026-11-27T10:15, in UTC)" if _is_moment(key) else "number"
