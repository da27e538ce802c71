"""`dgcctl rerun RUN [--check]`: run a recorded run again, and say whether it came out the same."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import TargetMissedError, UsageError
from dgc.recipe.load import load_recipe
from dgc.run import code_record
from dgc.run.paths import RunDir
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.trust import require, trusting
from dgcctl.cli._ui.watching import Watch
from dgcctl.core import settings
from dgcctl.core.repro import repetition as again
from dgcctl.core.repro.divergence import check_names, parse_tolerances, plain_name
from dgcctl.core.runs import find
from dgcctl.core.runs.record import read_record

_NAMED = 8  # of what else differs; a test tool that was installed since brings twenty packages

_Against = Annotated[
    str | None,
    typer.Option("--against", metavar="RUN", help="Run nothing: compare with this run instead."),
]


@trusting
@tabular
def rerun(
    run: options.RunArgument,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare with the record; end with 11 where it is not reproduced."
        ),
    ] = False,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            "--tolerance",
            metavar="METRIC=X",
            help="How far a final metric may be off, e.g. top1_error=0.5; what is named counts.",
        ),
    ] = None,
    current_code: Annotated[
        bool,
        typer.Option("--current-code", help="Run the code that is here, not that of the record."),
    ] = False,
    allow_change: Annotated[
        bool,
        typer.Option(
            "--allow-change", help="Run it although machine or versions differ from the record."
        ),
    ] = False,
    against: _Against = None,
    data_dir: options.DataDir = None,
    runs_dir: options.RunsDir = None,
    *,
    form: output.Form,
) -> None:
    """Restore code, recipe, seed and data of a run in a clean worktree, run it again, compare.

    The answer is one of: bitwise equal; within tolerance, metric by metric; not reproduced, and the
    first step that differs. --data-dir names the folder to which its images were moved; other
    images are refused by their digest.
    """
    tolerances = parse_tolerances(tolerance or [])
    folder = settings.runs_dir(runs_dir)
    recorded = find.find_run(run, folder)
    # Before hours of training: a metric that the record does not have.
    check_names(read_record(recorded).rows, tolerances)
    if against is None:
        _begin(recorded, data_dir)
        agree, say = _asking(recorded.id, allow_change=allow_change), diagnostics.note
        repeated = again.repeat(
            recorded, folder, current_code=current_code, agree=agree, say=say, data_dir=data_dir,
            show=lambda run: _watch(run, recorded),
        )  # fmt: skip
    else:
        repeated = find.find_run(against, folder)
    if not check and against is None:
        output.line(repeated.id)
        return
    _report(again.compare(recorded, repeated, tolerances), form)


def _watch(run: RunDir, recorded: RunDir) -> Watch:
    diagnostics.note(f"run {run.id}")
    return Watch(run, read_record(recorded).recipe)


def _begin(recorded: RunDir, data_dir: Path | None) -> None:
    """Refuse code that nobody trusts; say what is about to be done, and what the record lacks."""
    require(load_recipe(recorded.recipe))
    _say_what_lacks(recorded)
    diagnostics.note(f"running {recorded.id} again")
    if data_dir is not None:
        before = read_record(recorded).recipe.get("data.dir") or "none"
        diagnostics.note(f"data.dir: {before} in the record, now {data_dir.absolute()}")


def _say_what_lacks(recorded: RunDir) -> None:
    """A file that is not in the record may be what the code needs; and a record may be known not to
    give it back.
    """
    for level, sentence in code_record.sentences(read_record(recorded).git):
        if level == "warning":
            diagnostics.warn(f"{recorded.id}: {sentence}")


def _asking(run: str, *, allow_change: bool) -> again.Agree:
    """Name what differs and can change bits; ask whether to go on, or refuse where nobody can be
    asked.
    """

    def agree(changes: Sequence[str]) -> None:
        for change in changes:
            diagnostics.warn(f"{run}: {change}")
        if not changes or allow_change:
            return
        # In a script nobody answers, and silence is no consent.
        if not sys.stdin.isatty():
            raise UsageError(
                f"{run}: {changes[0]}{f' (and {len(changes) - 1} more)' if changes[1:] else ''}, so"
                " other bits are to be expected: nothing was run; --allow-change runs it all the"
                " same"
            )
        diagnostics.confirm("Other bits are to be expected. Run it all the same?", yes=False)

    return agree


def _report(found: again.Repetition, form: output.Form) -> None:
    comparison = found.comparison
    rows = [
        {
            "metric": check.name,
            "recorded": check.recorded,
            "repeated": check.repeated,
            "tolerance": check.tolerance,
            "within": check.within,
        }
        for check in comparison.metrics
    ]
    columns = [
        TableColumn("metric", show=lambda value: plain_name(str(value))),
        TableColumn("recorded", right=True),
        TableColumn("repeated", right=True),
    ]
    columns.append(
        TableColumn(
            "tolerance", right=True, show=lambda value: "-" if value is None else f"{value:g}"
        )
    )
    columns.append(TableColumn("within", show=lambda value: "yes" if value else "no"))
    facts = _document(found) if form is output.Form.JSON else {}
    output.table("metrics", columns, rows, form, **facts)
    verdict = (
        f"{comparison.verdict} ({comparison.rows} rows, {found.repeated.id} against"
        f" {found.recorded.id})"
    )
    if form is output.Form.TEXT:
        output.line(verdict)
    for difference in found.circumstances[:_NAMED]:
        was, now = ("absent" if value is None else value for value in (difference.a, difference.b))
        diagnostics.note(f"{difference.section}.{difference.key}: was {was}, is now {now}")
    if more := found.circumstances[_NAMED:]:
        pair = " ".join(settings.run_argument(run.path) for run in (found.recorded, found.repeated))
        diagnostics.note(f"and {len(more)} more: `dgcctl runs diff {pair}` lists all")
    if not (comparison.bitwise or comparison.within):
        raise TargetMissedError(f"{found.recorded.id}: not reproduced; {_where(found)}")


def _where(found: again.Repetition) -> str:
    comparison = found.comparison
    if comparison.outside:
        return "; ".join(comparison.outside[:3])
    return str(
        comparison.first or f"the same log, but other tensors: {', '.join(comparison.tensors)}"
    )


def _document(found: again.Repetition) -> dict[str, Any]:
    comparison = found.comparison
    return {
        "verdict": comparison.verdict,
        "bitwise": comparison.bitwise,
        "compared_rows": comparison.rows,
        "first_difference": vars(comparison.first) if comparison.first else None,
        "tensors": comparison.tensors,
        "recorded": found.recorded.id,
        "repeated": found.repeated.id,
        "circumstances": [vars(row) for row in found.circumstances],
    }
