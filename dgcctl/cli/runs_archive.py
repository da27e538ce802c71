"""`dgcctl runs verify`, `export`, `import`, `tag`, `note`, `rm` and `restore`: what is done with a
record as a whole.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from dgc.errors import IntegrityError, UsageError
from dgcctl.cli import runs_elsewhere
from dgcctl.cli._ui import completion, diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.trust import trusting
from dgcctl.cli.compare import select
from dgcctl.core import settings
from dgcctl.core.repro import recompute, run_import
from dgcctl.core.repro import run_archive as exporting
from dgcctl.core.repro.verify import Outcome
from dgcctl.core.repro.verify import verify as verify_run
from dgcctl.core.runs import find, labels, listing

_STYLES = {Outcome.OK: "green", Outcome.MISMATCH: "red", Outcome.UNCHECKED: "yellow"}


_Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN|FILTER...",
        help="Ids, prefixes, paths, `latest`; or e.g. 'tag:study'.",
        autocompletion=completion.complete_run_or_filter,
    ),
]
_To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="tensorboard|mlflow|wandb",
        help="For that program: curves, parameters, result and report, into a folder.",
    ),
]


@trusting
@tabular
def verify(
    run: _Runs,
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
    again = None if quick else partial(recompute.in_a_process, data_dir=data_dir)
    rows = []
    chosen = select(run, [], settings.runs_dir(runs_dir))
    for found in chosen:
        checks = verify_run(found, recompute=again)
        rows += [
            {"run": found.id, **vars(check), "outcome": str(check.outcome)} for check in checks
        ]
    columns = [
        # the same in all rows it tells nothing in a table
        *([TableColumn("run")] if len(chosen) > 1 else []),
        TableColumn("name", "record"),
        TableColumn("outcome", style=lambda value: _STYLES[Outcome(value)]),
        TableColumn("recorded", show=_short),
        TableColumn("found", show=_short),
        TableColumn("detail", show=lambda value: value or ""),
    ]
    facts = {"run": chosen[0].id} if len(chosen) == 1 else {}
    output.table("checks", columns, rows, form, **facts)
    _say_what_disagrees(rows, [found.id for found in chosen])


def _say_what_disagrees(rows: list[dict[str, Any]], ids: list[str]) -> None:
    lines = []
    for run_id in ids:
        mine = [row for row in rows if row["run"] == run_id]
        if wrong := [row["name"] for row in mine if row["outcome"] == Outcome.MISMATCH]:
            records = f"{len(wrong)} of {len(mine)} records do not agree"
            lines.append(f"{run_id}: {records}: {', '.join(wrong)}")
    if lines:
        raise IntegrityError("; ".join(lines))
    unchecked = sum(row["outcome"] == Outcome.UNCHECKED for row in rows)
    diagnostics.note(
        f"{len(rows) - unchecked} records"
        + (f" of {len(ids)} runs" if len(ids) > 1 else "")
        + " agree"
        + (f", {unchecked} not checked" if unchecked else "")
    )


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:16]}…"


def export(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FILTER... [TARGET]",
            help="Ids, prefixes, paths; or e.g. 'tag:study'; then the target, if -o is not given.",
            autocompletion=completion.complete_run_or_filter,
        ),
    ],
    given: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="TARGET",
            help="A new folder, or a name ending with .zip or .tar.gz; of several runs a folder.",
        ),
    ] = None,
    to: _To = "",
    checkpoints: Annotated[
        str,
        typer.Option("--checkpoints", metavar="best|all|none", help="Which checkpoints go along."),
    ] = "best",
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Copy a run to a read-only folder or an archive, with the digest of every file; several runs
    into a folder, each under its id.

    This is the record. `dgcctl ckpt export` writes its weights alone, `dgcctl export` a network
    that runs without PyTorch. `dgcctl runs import` takes it in again. With --to it is no record:
    it is what another program shows, in a folder that may hold other runs; nothing is uploaded.
    """
    # With -o all words are runs; else the last one is the target, as for cp.
    names, target = (words, given) if given is not None else (words[:-1], Path(words[-1]))
    if not names:
        raise UsageError(
            "runs export: name a run and where to: `dgcctl runs export latest -o F.zip`"
        )
    chosen = select(names, [], settings.runs_dir(runs_dir))
    if to:
        if checkpoints != "best":
            raise UsageError("--checkpoints is for a copy of the record: leave it out with --to")
        runs_elsewhere.hand_out(chosen, to, target, json=json)
        return
    several = len(chosen) > 1
    if several and target.suffix.lower() in (".zip", ".tar", ".gz", ".tgz"):
        raise UsageError(f"{target}: {len(chosen)} runs are exported into a folder: name one")
    written = []
    for found in chosen:
        place = target / found.id if several else target
        files = exporting.export(found, place, checkpoints=checkpoints)
        written.append({"run": found.id, "target": place, "files": files})
        if not json:
            output.line(str(place))
            diagnostics.note(f"{len(files)} files of run {found.id}")
    if json:
        output.document(**({"runs": written} if several else written[0]))


def take_in(
    source: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="An exported run, its archive, or a runs folder."),
    ],
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """Take runs in that were exported, or that lie in another runs folder; none twice.

    Digests of an export are checked first. What is here already stays as it is.
    """
    folder = settings.runs_dir(runs_dir)
    rows = []
    for place in source:
        for taken in run_import.import_runs(place, folder):
            rows.append({"run": taken.run.id, "outcome": taken.outcome})
            if not json:
                output.line(f"{taken.run.id}  {taken.outcome}")
    if json:
        output.document(runs=rows)


def rm(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FILTER...",
            help="Ids, prefixes, paths; or e.g. 'state=failed' 'age>30d'.",
            autocompletion=completion.complete_run_or_filter,
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
        typer.Argument(
            metavar="RUN|FILTER...",
            help="Ids, prefixes, paths; or e.g. 'state=done'.",
            autocompletion=completion.complete_run_or_filter,
        ),
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
    labels.note(find.find_run(run, settings.runs_dir(runs_dir)), text)
