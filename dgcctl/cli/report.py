"""`dgcctl report RUN...`: one self-contained page, and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgcctl.cli._ui import options, output
from dgcctl.cli._ui.targets import check_target
from dgcctl.cli.compare import select
from dgcctl.core import settings
from dgcctl.core.runs.record import read_record


def report(
    run: options.RunsOrFilters = None,
    target: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page.")
    ] = Path("report.html"),
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--plots", metavar="DIR", help="Also write each picture there, as PNG and SVG."
        ),
    ] = None,
    where: options.Where = None,
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Write a page with curves, pruning progress, gate maps, MACs, verdict and environment. It
    needs no network.
    """
    check_target("--output", target)
    from dgcctl.core.report.build import write_report  # matplotlib takes half a second to load

    chosen = select(run or [], where or [], settings.runs_dir(runs_dir))
    files = write_report([read_record(one) for one in chosen], target, pictures)
    if json:
        output.document(files=files)
    else:
        for path in files:
            output.line(str(path))
