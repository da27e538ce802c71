"""`dgcctl runs`: list, show, follow and stop runs. Further commands load from the table when
called.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from dgc.errors import UsageError
from dgc.run.events import Event, EventKind
from dgc.run.trusted_code import trust_words_of
from dgc.talk import shown
from dgcctl.cli._ui import completion, diagnostics, options, output, run_columns
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.lazy import App, Table
from dgcctl.core import garbage, settings
from dgcctl.core.launch.log_tail import log_lines
from dgcctl.core.runs import filters, find
from dgcctl.core.runs import listing as core
from dgcctl.core.runs.tail import Tail, follow

COMMANDS: Table = {
    "Compare and keep": {
        "compare": (
            "dgcctl.cli.compare:compare",
            "Several runs side by side, averaged over seeds.",
        ),
        "diff": ("dgcctl.cli.compare:diff", "What differs between two runs."),
        "verify": (
            "dgcctl.cli.runs_archive:verify",
            "Recompute what a run recorded; name what does not agree.",
        ),
        "export": ("dgcctl.cli.runs_archive:export", "An unchangeable copy or archive of a run."),
        "import": (
            "dgcctl.cli.runs_archive:take_in",
            "Take in exported runs, or another runs folder.",
        ),
        "tag": ("dgcctl.cli.runs_archive:tag", "Tag runs afterwards."),
        "note": ("dgcctl.cli.runs_archive:note", "Write a note to a run."),
        "rm": ("dgcctl.cli.runs_archive:rm", "Move runs into the trash."),
        "restore": (
            "dgcctl.cli.runs_archive:restore",
            "Bring runs back out of the trash, or empty it.",
        ),
    }
}
app = App("List, show, compare, follow and keep runs.", COMMANDS)


@app.command("ls")
@tabular
@garbage.left_alone()
def ls(
    terms: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILTER",
            help="e.g. 'lr>0.05' state=done tag:paper name~demo seed=0..2 'age<2h';"
            " `or` between two; each argument by itself.",
            autocompletion=completion.complete_filter,
        ),
    ] = None,
    where: options.Where = None,
    runs_dir: options.RunsDir = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort", metavar="KEY", help="By a column or a recipe's key; -KEY the largest first."
        ),
    ] = "started",
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="At most so many.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="KEY,KEY", help="These, e.g. lr,seed,top1_error."),
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Ids alone, for pipes.")] = False,
    *,
    form: output.Form,
) -> None:
    """Runs, the newest first."""
    folder = settings.present_runs_dir(runs_dir)
    every_run = core.list_runs(folder)
    terms = [*(terms or []), *(where or [])]
    found = filters.select(every_run, filters.parse_filters(terms))
    chosen = run_columns.ordered(found, sort, every_run)[:limit]
    if not chosen:
        diagnostics.note(
            f"no runs in {folder}" + (" match" if terms else ": `dgcctl train demo` makes one")
        )
    if ids:
        for run in chosen:
            output.line(run.id)
        every_run.remember()
        return
    # Programs get an empty table; a person has been told in a sentence.
    if chosen or form in (output.Form.JSON, output.Form.CSV):
        shown, rows = run_columns.table(chosen, columns, form, every_run)
        output.table("runs", shown, rows, form)
    every_run.remember()


@app.command()
def show(
    run: options.RunArgument = "latest",
    runs_dir: options.RunsDir = None,
    json: options.Json = False,
) -> None:
    """What a run came to, what it cost, and where it lies."""
    # only here: a listing of thousands needs no recipe checked, and what checks them loads slowly
    from dgcctl.cli._ui import summary

    found = find.find_run(run, settings.runs_dir(runs_dir))
    if json:
        output.document(**summary.document(found))
    else:
        output.facts(summary.rows(found))


@app.command()
def tail(
    run: options.RunArgument = "latest",
    runs_dir: options.RunsDir = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the past.")] = 20,
    following: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run ends.")
    ] = False,
    log: Annotated[bool, typer.Option("--log", help="The text log instead of the events.")] = False,
    json: options.Json = False,
) -> None:
    """The last events of a run; with --follow as they come. --json prints one object a line."""
    found = find.find_run(run, settings.runs_dir(runs_dir))
    if log:
        for line in log_lines(found.log, lines):
            output.line(line)
        return
    reader = Tail(found)
    show_event = _event_json if json else event_line
    # The whole log once, and from there on only what is new.
    first = reader.poll()
    for event in first.events[-lines:] if lines else []:
        output.line(show_event(event))
    _say_skipped(first.skipped)
    if following and not first.over:
        for batch in follow(reader):
            for event in batch.events:
                output.line(show_event(event))
            _say_skipped(batch.skipped)


def _say_skipped(offsets: list[int]) -> None:
    if offsets:
        lines = "1 line" if len(offsets) == 1 else f"{len(offsets)} lines"
        diagnostics.warn(f"{lines} skipped (offset {', '.join(map(str, offsets[:3]))})")


def _event_json(event: Event) -> str:
    return output.json_text({key: value for key, value in event.items() if key != "crc"})


_HIDDEN = frozenset({"kind", "t", "crc", "nonfinite"})


def event_line(event: Event) -> str:
    """`12:01:05  step   step 20  epoch 0  loss 2.1034 ...`."""
    clock = time.strftime("%H:%M:%S", time.gmtime(event.get("t", 0)))
    values = "  ".join(
        f"{key} {_short(key, value, event)}"
        for key, value in event.items()
        if key not in _HIDDEN and value != ""
    )
    kind = diagnostics.paint(
        f"{event['kind']:<10}", "red" if event["kind"] == EventKind.ALERT else "bold", sys.stdout
    )
    return diagnostics.Painted(f"{clock}  {kind}  {shown(values)}")


def _short(key: str, value: Any, event: Event) -> str:
    if value is None:
        return str(event.get("nonfinite", {}).get(key, "-"))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@app.command()
def stop(run: options.RunArgument = "latest", runs_dir: options.RunsDir = None) -> None:
    """Ask a running training to finish its step, save and stop (from any machine that sees the
    folder).

    `latest` is here the newest run that is running, be it a training or a repetition by `rerun`.
    """
    found = find.find_running(run, settings.runs_dir(runs_dir))
    state = core.read_run(found).state
    if state != "running":
        raise UsageError(f"run {found.id} is {state}, not running: there is nothing to stop")
    found.control.mkdir(exist_ok=True)
    (found.control / "stop").touch()
    if found.config.exists():
        diagnostics.note(f"asked run {found.id} to stop: its script hears it where it looks for it")
        return
    diagnostics.note(
        f"asked run {found.id} to save and stop: `dgcctl resume"
        f" {settings.run_argument(found.path)}{trust_words_of(found.recipe_json)}` goes on with it"
    )
