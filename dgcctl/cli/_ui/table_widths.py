"""How a table comes to fit a terminal: titles stand in two lines, ids in their short form (which
names a run as well), columns that say least are left out, and the widest texts are shortened, first
one then the next; never what one computes with (numbers). A pipe and a file get everything.
"""

from __future__ import annotations

import itertools
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len

from dgcctl.core.runs.run_ids import is_stamped, recipe_name

WORTH = 16  # places that texts are left with while a column can be left out instead
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


@dataclass
class Grid:
    """The texts of a table. `drops`: columns with a number above 0 are left out, the largest first;
    `may`: those that can be shortened, `prose`: in several lines and not cut.
    """

    heads: list[list[str]]  # the lines of each title
    cells: list[list[str]]
    may: list[bool]
    drops: list[int]
    prose: list[bool]
    kept: list[int]
    widths: list[int] = field(default_factory=list)

    def measure(self) -> int:
        """Places that it takes."""
        columns = zip(self.heads, *self.cells, strict=True)
        self.widths = [
            max([*map(cell_len, head), *map(cell_len, texts)]) for head, *texts in columns
        ]
        return sum(self.widths) + GAP * (len(self.widths) - 1)

    def least(self) -> int:
        """Places that it takes with its texts as short as is worth it."""
        self.measure()
        short = [
            min(width, max(WORTH, *map(cell_len, head))) if may else width
            for width, may, head in zip(self.widths, self.may, self.heads, strict=True)
        ]
        return sum(short) + GAP * (len(short) - 1)

    def empty(self) -> set[int]:
        """The places of the columns in which no row has anything; a table without rows has none."""
        return {
            place
            for place in range(len(self.kept) if self.cells else 0)
            if all(row[place] in ("", "-") for row in self.cells)
        }

    def leave_out(self, place: int) -> None:
        for facts in (self.heads, self.may, self.drops, self.prose, self.kept):
            del facts[place]
        for row in self.cells:
            del row[place]


def squeeze(grid: Grid, room: int, ids: Sequence[int]) -> None:
    """Make it fit, if it can be; `ids`: the columns of ids."""
    if grid.measure() <= room:
        return
    grid.heads = [
        in_two(head[0], max((cell_len(row[place]) for row in grid.cells), default=0))
        for place, head in enumerate(grid.heads)
    ]
    if grid.least() > room:
        for place in ids:
            _shorten_ids(grid, place)
    if grid.least() > room:
        for place in sorted(grid.empty(), reverse=True):  # nothing is lost with them
            grid.leave_out(place)
    while grid.least() > room and any(grid.drops):
        grid.leave_out(max(range(len(grid.drops)), key=lambda place: grid.drops[place]))
    grid.measure()
    heads = [max(head, key=cell_len) for head in grid.heads]
    grid.widths = most(grid.widths, heads, grid.may, room)
    grid.cells = [
        [
            text if prose else fitted(text, width)
            for text, width, prose in zip(texts, grid.widths, grid.prose, strict=True)
        ]
        for texts in grid.cells
    ]


def in_two(head: str, cells: int) -> list[str]:
    """A title in two lines, where it is wider than what stands below it; parted at a blank or
    behind a dot (`model.gate_factor`), where the wider line is shortest.
    """
    if cell_len(head) <= cells:
        return [head]
    parted = [
        [head[: found.end()].rstrip(" "), head[found.end() :]]
        for found in re.finditer(r"[ .](?=.)", head)
    ]
    return min(parted, key=lambda lines: max(map(cell_len, lines)), default=[head])


def _shorten_ids(grid: Grid, place: int) -> None:
    """`demo-0a1b2c` of `20260101T000000Z-demo-0a1b2c`: as good a name, if no other has it."""
    whole = [row[place] for row in grid.cells]
    short = [f"{recipe_name(text)}-{text.rpartition('-')[2]}" if is_stamped(text) else text
             for text in whole]  # fmt: skip
    if len(set(short)) == len(set(whole)):
        for row, text in zip(grid.cells, short, strict=True):
            row[place] = text


def in_lines(texts: Sequence[str], widths: Sequence[int]) -> list[list[str]]:
    """One row as several, where a text is wider than its column: parted between words."""
    parted = [_lines(text, width) for text, width in zip(texts, widths, strict=True)]
    return [list(line) for line in itertools.zip_longest(*parted, fillvalue="")]


def _lines(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(longer) <= width:
            lines[-1] = longer
        elif lines[-1]:
            lines.append(word)
        else:
            lines[-1] = word
    # a word that has no room by itself is cut
    return [fitted(line, width) for line in lines]


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
