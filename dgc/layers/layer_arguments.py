"""What a dynamic layer may be made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgc.errors import ArgumentError


def check_arguments(given: Mapping[str, Any]) -> None:
    """Every argument is quoted with its value and what is allowed."""
    for name in (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "dilation",
        "heads",
        "squeeze_rate",
    ):
        _check_integer(name, given[name], 1)
    _check_integer("padding", given["padding"], 0)
    for name in ("in_channels", "out_channels"):
        if given[name] % given["heads"]:
            raise ArgumentError(f"{name}={given[name]} is no multiple of heads={given['heads']}")
    factor = given["gate_factor"]
    # bool first: True is an int to Python, and would pass as a share of 1
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise ArgumentError(
            f"gate_factor={factor!r} must be a number in (0, 1], the share of channels that is kept"
        )
    # as schedule.inactive_channels rounds: what it would reach must leave one channel on
    if round(given["in_channels"] * (1 - factor)) >= given["in_channels"]:
        raise ArgumentError(
            f"gate_factor={factor!r} keeps no channel of in_channels={given['in_channels']}"
        )


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(f"{name}={value!r} must be an integer >= {least}")
