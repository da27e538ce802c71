"""`dgcctl doctor`: what this machine offers, and what is wrong with it."""

from __future__ import annotations

from dgc.errors import DgcError
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.core import settings
from dgcctl.core.diagnosis import Level, examine

_STYLES = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "red"}


@tabular
def doctor(runs_dir: options.RunsDir = None, *, form: output.Form) -> None:
    """Python, torch, CPU, GPU, native kernels, packages, memory, folders; what is wrong and what to
    do about it.

    Ends with 1 where something must be mended before anything can work.
    """
    findings = list(examine(settings.runs_dir(runs_dir), say=diagnostics.detail))
    rows = [{**vars(finding), "level": str(finding.level)} for finding in findings]
    columns = [
        TableColumn("level", "", style=lambda value: _STYLES[Level(value)]),
        TableColumn("name", "what", whole=True),
        TableColumn("value", "found", prose=True),
    ]
    output.table("findings", columns, rows, form)
    for finding in findings:
        if finding.level is Level.NOTE:
            diagnostics.note(f"note: {finding.name}: {finding.advice}")
    problems = [finding for finding in findings if finding.level is Level.PROBLEM]
    if problems:
        raise DgcError(
            "; ".join(f"{finding.name}: {finding.value}: {finding.advice}" for finding in problems)
        )
