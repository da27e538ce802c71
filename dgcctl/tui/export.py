"""What is on screen into files: the numbers as CSV, the frame as SVG."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dgcctl.tui.app import DashApp
    from dgcctl.tui.screens.base import DashScreen


def write(app: DashApp, screen: DashScreen) -> list[Path]:
    """Write both files into the export folder under a new name; return their paths. Raises OSError."""
    folder = app.options.export_dir
    folder.mkdir(parents=True, exist_ok=True)
    stem = _new_stem(
        folder, f"dash-{screen.name_for_files}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(app.clock.now()))}"
    )
    svg, table = folder / f"{stem}.svg", folder / f"{stem}.csv"
    svg.write_text(app.export_screenshot(title=f"dgcctl dash: {screen.name_for_files}"), encoding="utf-8")
    table.write_text(as_csv(*screen.sheet()), encoding="utf-8")
    return [table, svg]


def as_csv(head: object, rows: object) -> str:
    """RFC 4180 with Unix line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)  # type: ignore[arg-type]
    writer.writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def _new_stem(folder: Path, stem: str) -> str:
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not (folder / f"{name}.csv").exists())
