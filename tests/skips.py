"""Tests are skipped only by name: `skips.txt` says which, for what reason, and where they run
instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("skips.txt")


@dataclass(frozen=True)
class Line:
    """`test` is a file or file::name (all its parameters); `reason` is what pytest prints, `*`
    stands for any text.
    """

    test: str
    reason: str
    where: str

    def covers(self, nodeid: str, reason: str) -> bool:
        name = nodeid.partition("[")[0]
        return (name == self.test or name.startswith(self.test + "::")) and fnmatchcase(
            reason, self.reason
        )


@cache
def lines() -> tuple[Line, ...]:
    """What the file says. Raises ValueError for a line without its three parts."""
    found = []
    for number, text in enumerate(FILE.read_text(encoding="utf-8").splitlines(), start=1):
        if text and not text.startswith("#"):
            parts = [part.strip() for part in text.split("|")]
            if len(parts) != 3 or not all(parts):
                raise ValueError(f"{FILE.name}:{number}: write `test | reason | where it runs`")
            found.append(Line(*parts))
    return tuple(found)


def listed(nodeid: str, reason: str) -> bool:
    """Whether this test may be skipped for this reason."""
    return any(line.covers(nodeid, reason) for line in lines())
