"""What is on screen into files: the numbers as CSV, the frame as SVG and as PNG.

`take` looks at the screen, in its thread; `write` works without it, for 600,000 numbers take
seconds.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment, Segments
from rich.terminal_theme import TerminalTheme
from textual.app import App
from textual.strip import Strip

from dgc.errors import DgcError
from dgc.run.files import atomic_write
from dgcctl.tui.bitmap import picture

if TYPE_CHECKING:
    from dgcctl.tui.screens.base import DashScreen, ExportTable


@dataclass(frozen=True)
class Taken:
    """One frame and the numbers behind it."""

    name: str
    moment: float
    strips: Sequence[Strip]
    table: ExportTable
    theme: TerminalTheme


def take(app: App[Any], screen: DashScreen, moment: float) -> Taken:
    """What is on screen now."""
    return Taken(
        screen.name_for_files,
        moment,
        app.screen._compositor.render_strips(),
        screen.export_table(),
        app.ansi_theme,
    )


def write(taken: Taken, folder: Path) -> list[Path]:
    """Write three files into the folder under a new name; return their paths. Raises OSError or
    DgcError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # One name for all three: the CSV's, which is taken as it is found.
    table = _new_file(
        folder, f"dash-{taken.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(taken.moment))}"
    )
    vector, pixels = table.with_suffix(".svg"), table.with_suffix(".png")
    atomic_write(table, as_csv(*taken.table).encode())
    atomic_write(vector, as_svg(taken).encode())
    atomic_write(pixels, as_png(taken))
    return [table, vector, pixels]


def as_csv(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """RFC 4180 with Unix line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def as_svg(taken: Taken) -> str:
    width = max(strip.cell_length for strip in taken.strips)
    console = Console(
        width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True,
        legacy_windows=False, safe_box=False,
    )  # fmt: skip
    console.print(
        Segments([segment for strip in taken.strips for segment in (*strip, Segment.line())]),
        end="",
    )
    return console.export_svg(title=f"dgcctl dash: {taken.name}", theme=taken.theme)


def as_png(taken: Taken) -> bytes:
    data = io.BytesIO()
    picture(taken.strips, taken.theme).save(data, "PNG", optimize=True)
    return data.getvalue()


def _new_file(folder: Path, stem: str) -> Path:
    """The first name that is free, taken at once: two exports of one second do not meet."""
    for number in range(1, 1000):
        path = folder / f"{stem}{'' if number == 1 else f'-{number}'}.csv"
        try:
            # Made and not only looked for: another dashboard may export in the same second.
            path.open("x").close()
        except FileExistsError:
            continue
        return path
    raise FileExistsError(17, "a thousand exports of one second are there", str(folder / stem))


def why_not(error: OSError | DgcError) -> str:
    """What `write` met, in one line."""
    return (
        f"{error.filename}: cannot be written ({error.strerror})"
        if isinstance(error, OSError)
        else str(error)
    )
