"""`dgcctl runs verify`, `export` and `rm`: what is done with a record as a whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dgc.errors import IntegrityError, UsageError
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.trust import trusting
from dgcctl.cli.compare import select
from dgcctl.core import settings
from dgcctl.core.repro import recompute
from dgcctl.core.repro import run_archive as exporting
from dgcctl.core.repro.verify import Outcome
from dgcctl.core.repro.verify import verify as verify_run
from dgcctl.core.runs import labels, listing

_STYLES = {Outcome.OK: "green", Outcome.MISMATCH: "red", Outcome.UNCHECKED: "yellow"}


@trusting
@tabular
def verify(
    run: options.RunArgument,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Only what needs no torch: leave out data set, MACs, parameters."
        ),
    ] = False,
    data_dir: options.DataDir = None,
    runs_dir: options.RunsDir = None,
    *,
    form: output.Form,
) -> None:
    """Recompute what a run recorded and name each record that does not agree; ends with 4 if one
    does not.
    """
    found = listing.find_run(run, settings.runs_dir(runs_dir))
    checks = verify_run(
        found, recompute=None if quick else partial(recompute.in_a_process, data_dir=data_dir)
    )
    rows = [{**vars(check), "outcome": str(check.outcome)} for check in checks]
    columns = [
        TableColumn("name", "record"),
        TableColumn("outcome", style=lambda value: _STYLES[Outcome(value)]),
        TableColumn("recorded", show=_short),
        TableColumn("found", show=_short),
        TableColumn("detail", show=lambda value: value or ""),
    ]
    output.table("checks", columns, rows, form, run=found.id)
    wrong = [check.name for check in checks if check.outcome is Outcome.MISMATCH]
    if wrong:
        raise IntegrityError(
            f"{found.id}: {len(wrong)} of {len(checks)} records do not agree: {', '.join(wrong)}"
        )
    unchecked = sum(check.outcome is Outcome.UNCHECKED for check in checks)
    diagnostics.note(
        f"{len(checks) - unchecked} records agree"
        + (f", {unchecked} not checked" if unchecked else "")
    )


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:16]}…"


def export(
    run: options.RunArgument,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET", help="A new folder, or a name ending with .zip or .tar.gz."
        ),
    ],
    checkpoints: Annotated[
        str,
        typer.Option("--checkpoints", metavar="best|all|none", help="Which checkpoints go along."),
    ] = "best",
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Copy a run to a read-only folder or an archive, with the digest of every file.

    This is the record. `dgcctl ckpt export` writes its weights alone, `dgcctl export` a network that
    runs without PyTorch.
    """
    found = listing.find_run(run, settings.runs_dir(runs_dir))
    names = exporting.export(found, target, checkpoints=checkpoints)
    if json:
        output.document(run=found.id, target=target, files=names)
    else:
        output.line(str(target))
        diagnostics.note(f"{len(names)} files of run {found.id}")


def rm(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FILTER...", help="Ids, prefixes, paths; or e.g. 'state=failed' 'age>30d'."
        ),
    ],
    for_good: Annotated[
        bool, typer.Option("--for-good", help="Delete at once, not into the trash.")
    ] = False,
    yes: options.Yes = False,
    dry_run: options.DryRun = False,
    runs_dir: options.RunsDir = None,
) -> None:
    """Move runs into the trash, checkpoints included. Asks first; a running one is refused.

    `dgcctl runs restore` brings them back, or empties the trash.
    """
    doomed = select(run, [], settings.runs_dir(runs_dir))
    names = ", ".join(one.id for one in doomed)
    act = "delete {} for good" if for_good else "move {} into the trash"
    if dry_run:
        diagnostics.note(f"would {act.format(names)}")
        return
    diagnostics.confirm(f"{act.format(names)}?", yes=yes)
    for one in doomed:
        exporting.remove(one) if for_good else exporting.throw_away(one)
        output.line(one.id)


def restore(
    run: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN|FILTER...]", help="What to bring back; none: list the trash."),
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="Delete what is in the trash for good.")
    ] = False,
    yes: options.Yes = False,
    runs_dir: options.RunsDir = None,
) -> None:
    """Bring runs back out of the trash, list it, or empty it."""
    trash = settings.present_runs_dir(runs_dir) / exporting.TRASH
    found = listing.list_runs(trash)
    if empty:
        if run:
            raise UsageError("--empty deletes all that is in the trash: name no runs beside it")
        diagnostics.confirm(f"delete {len(found)} runs in {trash} for good?", yes=yes)
        for one in found:
            exporting.remove(one.dir)
            output.line(one.id)
        return
    if not found:
        diagnostics.note(f"nothing in {trash}")
    chosen = select(run, [], trash) if run else []
    for back in chosen:
        output.line(exporting.bring_back(back).id)
    if not run:
        for one in found:
            output.line(one.id)


def tag(
    run: Annotated[
        list[str],
        typer.Argument(metavar="RUN|FILTER...", help="Ids, prefixes, paths; or e.g. 'state=done'."),
    ],
    add: Annotated[
        list[str] | None, typer.Option("--add", "-a", metavar="TAG", help="Give this tag.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", "-r", metavar="TAG", help="Take it away.")
    ] = None,
    runs_dir: options.RunsDir = None,
) -> None:
    """Tag runs afterwards: `tag:TAG` finds them. A recipe's own tags stay."""
    if not add and not remove:
        raise UsageError("say --add TAG or --remove TAG")
    for one in select(run, [], settings.runs_dir(runs_dir)):
        kept = labels.tag(one, add or (), remove or ())
        output.line(f"{one.id}  {' '.join(kept.tags) or '-'}")


def note(
    run: options.RunArgument,
    text: Annotated[str, typer.Argument(help="A sentence; an empty one takes the note away.")],
    runs_dir: options.RunsDir = None,
) -> None:
    """Write a note to a run: `runs show` has it, filters find it (note~word)."""
    labels.note(listing.find_run(run, settings.runs_dir(runs_dir)), text)
