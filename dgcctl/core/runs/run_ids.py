"""What is in the id of a run, `<utc>-<name>-<hex>`."""

from __future__ import annotations

import re
import time

_STAMPED = re.compile(r"\d{8}T\d{6}Z-.+-[0-9a-f]+$")


def recipe_name(run_id: str) -> str:
    """`demo` of `20260101T000000Z-demo-0a1b2c`; the whole id where it has no such form."""
    stamp, _, rest = run_id.partition("-")
    name, _, tail = rest.rpartition("-")
    return name if stamp and name and tail else run_id


def is_stamped(name: str) -> bool:
    """Whether a folder's name is the id of a run: `<utc>-<name>-<hex>`."""
    return bool(_STAMPED.match(name))


def stamp_of(moment: float) -> str:
    """How an id begins."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment))


def short_forms(run_id: str) -> list[str]:
    """`demo-0a1b2c` and `0a1b2c` of `20260101T000000Z-demo-0a1b2c`:
    what the dashboard shows, and the end alone.
    """
    rest = run_id.partition("-")[2]
    return [rest, rest.rpartition("-")[2]] if rest else []
