"""The colour of a run's state in tables."""

from __future__ import annotations

from typing import Any

_STYLES = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "died": "red",
    "unreadable": "red",
    "stopped": "yellow",
}


def state_style(state: Any) -> str:
    return _STYLES.get(str(state), "")
