"""How numbers read: the same everywhere."""

from __future__ import annotations

import time
from typing import Any


def dash(value: Any) -> str:
    return "-" if value is None else str(value)


def percent(value: float | None) -> str:
    """An error that is already in percent."""
    return "-" if value is None else f"{value:.2f} %"


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


def duration(seconds: float | None) -> str:
    """`42s`, `3m05s`, `2h10m`, `4d03h`."""
    if seconds is None:
        return "-"
    whole = int(max(0.0, seconds))
    for big, small, span, letters in (
        (86400, 3600, 24, "dh"),
        (3600, 60, 60, "hm"),
        (60, 1, 60, "ms"),
    ):
        if whole >= big:
            return f"{whole // big}{letters[0]}{whole % big // small % span:02d}{letters[1]}"
    return f"{whole}s"


def ago(seconds: float | None) -> str:
    return "-" if seconds is None else f"{duration(seconds)} ago"


def when(moment: float | None) -> str:
    """A moment in UTC."""
    return "-" if not moment else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
