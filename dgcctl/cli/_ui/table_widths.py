"""How a table comes to fit a terminal: the widest texts are shortened, first one then the next, and
never what one copies (ids) or computes with (numbers). A pipe and a file get everything.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from rich.cells import cell_len

LEAST = 8  # places below which a text says nothing any more
GAP = 2  # places between two columns


def room() -> int | None:
    """The width of the terminal behind stdout; None where there is none."""
    if not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns or 80


def most(widths: Sequence[int], heads: Sequence[str], may: Sequence[bool], room: int) -> list[int]:
    """How wide each column may be in so many places; `may` says which can be shortened."""
    found = list(widths)
    least = [max(LEAST, cell_len(head)) for head in heads]
    while (over := sum(found) + GAP * (len(found) - 1) - room) > 0:
        able = [i for i in range(len(found)) if may[i] and found[i] > least[i]]
        if not able:
            break
        widest = max(able, key=lambda i: found[i])
        # down to the next widest, so that two long columns share what there is
        found[widest] = max(least[widest], found[widest] - over, _step(found, widest))
    return found


def _step(found: Sequence[int], widest: int) -> int:
    """Where the widest column meets the next one below it; a place less where there is none."""
    below = [width for width in found if width < found[widest]]
    equal = sum(width == found[widest] for width in found) > 1
    return found[widest] - 1 if equal or not below else max(below)


def fitted(text: str, most: int) -> str:
    """At most so many places: names that differ often do so at their end, so the middle goes."""
    if cell_len(text) <= most:
        return text
    front, back = (most - 1) // 2, most - 1 - (most - 1) // 2
    return f"{_places(text, front)}…{_places(text[::-1], back)[::-1]}"


def _places(text: str, most: int) -> str:
    """As many letters from the front as have room."""
    end = most
    while cell_len(text[:end]) > most:
        end -= 1
    return text[:end]
