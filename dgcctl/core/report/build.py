"""`dgcctl report`: one page that needs nothing else, and its pictures as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dgc.run.files import atomic_write
from dgcctl.core.report.page import page
from dgcctl.core.report.plots import Plot, plots
from dgcctl.core.report.run_view import views
from dgcctl.core.runs.record import RunRecord


def write_report(
    runs: Sequence[RunRecord], target: Path, pictures: Path | None = None
) -> list[Path]:
    """Write the page, and with `pictures` each plot as PNG and SVG. Returns the files written."""
    shown = views(runs)
    drawn = plots(shown)
    files = write_pictures(drawn, pictures) if pictures else []
    target.parent.mkdir(parents=True, exist_ok=True)
    # pictures first: a page that is there has its pictures beside it
    atomic_write(target, page(shown, drawn).encode(), point="report")
    return [target, *files]


def write_pictures(drawn: Sequence[Plot], folder: Path) -> list[Path]:
    """`<folder>/<name>.svg` and `.png` of each plot."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for plot in drawn:
        for suffix, data in ((".svg", plot.svg().encode()), (".png", plot.png())):
            path = folder / f"{plot.name}{suffix}"
            atomic_write(path, data, point="report")
            files.append(path)
    return files
