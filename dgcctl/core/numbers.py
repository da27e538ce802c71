"""How numbers read in commands, dashboard and reports: the same everywhere."""

from __future__ import annotations

import time
from typing import Any


def dash(value: Any) -> str:
    return "-" if value is None else str(value)


def part(done: int, whole: int) -> str:
    """`3/60`; `3` where nobody said of how many (a script need not)."""
    return f"{done:,}/{whole:,}" if whole else f"{done:,}"


def percent(value: float | None) -> str:
    """An error that is already in percent."""
    return "-" if value is None else f"{value:.2f} %"


def figure(value: float | None) -> str:
    """A figure of a script's own, of which nobody knows the size: to five digits."""
    return "-" if value is None else f"{value:.5g}"


def decimals(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    """`71,037,118`."""
    return "-" if value is None else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """`71.04 M`."""
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f}"


def size(value: float | None) -> str:
    """Bytes: `12.3 MiB`."""
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def rough_count(value: float | None) -> str:
    """To three digits, where there is little room: `1.9 M`, `549 M`, `1.28 G`."""
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def rough_size(value: float | None) -> str:
    """Bytes to three digits: `812 MiB`, `1.28 GiB`."""
    if value is None:
        return "-"
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value >= 1024**power:
            return f"{_three_digits(value / 1024**power)} {unit}"
    return f"{value:.0f} B"


def _three_digits(value: float) -> str:
    # from 999.5 on, three digits would be an exponent
    return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def duration(seconds: float | None, gap: str = "") -> str:
    """`42s`, `3m05s`, `2h10m`, `4d03h`;
    with a gap of one blank `3m 05s`. A negative one is `0s`.
    """
    if seconds is None:
        return "-"
    # whole seconds, and rounded down: a duration never says more than has passed
    whole = int(max(0.0, seconds))
    for big, small, span, letters in (
        (86400, 3600, 24, "dh"),
        (3600, 60, 60, "hm"),
        (60, 1, 60, "ms"),
    ):
        if whole >= big:
            rest = f"{whole % big // small % span:02d}"
            return f"{whole // big}{letters[0]}{gap}{rest}{letters[1]}"
    return f"{whole}s"


def spaced_duration(seconds: float) -> str:
    """As the dashboard writes it: `3m 05s`."""
    return duration(seconds, " ")


def age(seconds: float) -> str:
    """An age in its largest unit, so that it seldom changes: `<1m`, `7m`, `3h`, `5d`."""
    total = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if total >= size:
            return f"{total // size}{unit}"
    return "<1m"


def when(moment: float | None) -> str:
    """A moment in UTC."""
    return "-" if not moment else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def stamp(moment: float) -> str:
    """The same in a table: `2026-01-05 09:00:00Z`."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment))
