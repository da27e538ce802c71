"""`dgcctl sweep RECIPE KEY=A,B ...`, `sweep ls`, `sweep show`.

A group whose first word may be a recipe: `ls` and `show` are commands, anything else is a recipe to
sweep.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dgc.errors import DgcError, ExitCode, UsageError
from dgc.run.names import checked_name
from dgcctl.cli._ui import completion, diagnostics, judged, on_cluster, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.state_style import state_style
from dgcctl.cli._ui.trust import require, trusting
from dgcctl.core import numbers, settings
from dgcctl.core.sweep import plan as sweeps
from dgcctl.core.sweep import pool
from dgcctl.core.sweep.grid import Axis, parse_axis

_COUNTS = ("trials", "done", "running", "pending", "stopped", "failed", "died")
# values that are the same in all trials tell nothing in a table; a file has them all
_VALUES = TableColumn("swept", "values", in_files="values")
_TRIAL_COLUMNS = [
    TableColumn("trial", right=True),
    _VALUES,
    TableColumn("state", style=state_style),
    TableColumn("top1_error", "top-1 error", numbers.percent, right=True),
    TableColumn("run"),
    TableColumn("reason", show=lambda value: str(value or ""), prose=True),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", "-j", min=1, metavar="N", help="Trials at once [one a GPU, else 1]."),
]
_RecipeOrLook = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|ls|show",
        help="A recipe to sweep; or ls, or show SWEEP.",
        autocompletion=completion.complete_recipe_or_look,
    ),
]


@trusting
@tabular
def sweep(
    recipe: _RecipeOrLook,
    axes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=A,B...",
            help="Values to try: optim.lr=0.05,0.1 seed=0..2 model.gate_factor=0.25..0.75:0.25",
            autocompletion=completion.complete_axis,
        ),
    ] = None,
    jobs: Jobs = None,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Start nothing more once a trial failed.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed trials again.")
    ] = False,
    name: Annotated[
        str, typer.Option("--name", help="Its name [recipe and a digest of the values].")
    ] = "",
    on_end: options.OnEnd = None,
    launcher: options.Launcher = "local",
    sbatch: options.Sbatch = None,
    data_dir: options.DataDir = None,
    runs_dir: options.RunsDir = None,
    dry_run: options.DryRun = False,
    *,
    form: output.Form,
) -> int | None:
    """Train a recipe once for each combination of values.

    The plan is a file: the same command again goes on where it was. A failed trial does not stop
    the rest. `sweep ls` lists sweeps, `sweep show SWEEP` its trials.
    """
    folder = settings.runs_dir(runs_dir)
    if recipe == "ls":
        _list(folder, form)
        return None
    if recipe == "show":
        _show(sweeps.find_sweep(folder, (axes or ["latest"])[0]), form)
        return None
    parsed = [parse_axis(axis) for axis in axes or []]
    _require_axes(parsed, name)
    on_slurm = on_cluster.asked(launcher, sbatch, {"--fail-fast": fail_fast, "--on-end": on_end})
    fixed = _fixed(options.data_override(data_dir), parsed)
    if dry_run:
        _plan(recipe, fixed, parsed, form)
        return None
    found = sweeps.open_or_create(folder, recipe, fixed, parsed, name, require)
    judged.say_what_no_longer_holds(sweeps.recipes(found))
    if on_slurm:
        due = [str(trial.index) for trial in sweeps.due(found, retry_failed=retry_failed)]
        return on_cluster.give("sweep", found.path, due, jobs, sbatch)
    return _run(found, form, jobs, fail_fast, retry_failed, on_end)


def _require_axes(parsed: list[Axis], name: str) -> None:
    if not parsed:
        raise UsageError(
            "sweep: name at least one key with its values, as optim.lr=0.05,0.1 or seed=0..2"
        )
    if name:
        checked_name(name, "--name")


def _fixed(folder: list[str], parsed: list[Axis]) -> list[str]:
    """What the recipe of all trials starts from: a folder comes with the keys of one value, as
    data.name may be.
    """
    return (
        [f"{axis.key}={axis.values[0]}" for axis in parsed if len(axis.values) == 1] + folder
        if folder
        else []
    )


def _plan(recipe: str, fixed: list[str], parsed: list[Any], form: output.Form) -> None:
    trials = sweeps.checked_trials(recipe, fixed, parsed, require)
    told = sweeps.swept([trial.overrides for trial in trials])
    rows = [
        {
            "trial": trial.index,
            "values": " ".join(trial.overrides),
            "swept": values,
            "digest": trial.digest,
        }
        for trial, values in zip(trials, told, strict=True)
    ]
    columns = [TableColumn("trial", right=True), _VALUES, TableColumn("digest")]
    output.table("trials", columns, rows, form)


def _run(
    found: sweeps.Sweep,
    form: output.Form,
    jobs: int | None,
    fail_fast: bool,
    retry_failed: bool,
    on_end: str | None,
) -> int | None:
    gpus = pool.visible_gpus()
    slots = jobs or max(1, len(gpus))
    diagnostics.note(f"sweep {found.plan.id}: {len(found.plan.trials)} trials, {slots} at once")
    shared = gpus if len(gpus) > 1 else []
    outcome = pool.run_sweep(
        found,
        jobs=slots,
        fail_fast=fail_fast,
        retry_failed=retry_failed,
        gpus=shared,
        say=diagnostics.note,
        on_end=on_end,
    )
    _show(found, form)
    if outcome.interrupted:
        diagnostics.note("stopped; the same command goes on where it was")
        return outcome.interrupted
    failed = [row["trial"] for row in sweeps.trial_rows(found) if row["state"] != "done"]
    if failed:
        names = ", ".join(map(str, failed))
        raise DgcError(
            f"sweep {found.plan.id}: trials {names} are not done: see `dgcctl sweep show"
            f" {found.plan.id}`"
        )
    return int(ExitCode.DONE)


def _show(found: sweeps.Sweep, form: output.Form) -> None:
    output.table(
        "trials",
        _TRIAL_COLUMNS,
        sweeps.trial_rows(found),
        form,
        sweep=found.plan.id,
        values=found.plan.axes,
    )


def _list(folder: Any, form: output.Form) -> None:
    columns = [
        TableColumn("id", "sweep"),
        *(TableColumn(name, right=True) for name in _COUNTS),
        TableColumn("values"),
    ]
    output.table(
        "sweeps", columns, sweeps.summary_rows(sweeps.list_sweeps(folder, diagnostics.warn)), form
    )
