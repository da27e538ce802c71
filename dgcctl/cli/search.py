"""`dgcctl search RECIPE KEY=RANGE ...`, `search ls`, `search show`: values chosen by Optuna."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgc.errors import DgcError, ExitCode, UsageError
from dgcctl.cli._ui import completion, diagnostics, on_cluster, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.state_style import state_style
from dgcctl.cli._ui.trust import require, trusting
from dgcctl.core import settings
from dgcctl.core.find_by_id import find_by_id
from dgcctl.core.search import study
from dgcctl.core.search.draws import Unusable
from dgcctl.core.search.worker import work

_Sampler = Annotated[
    str, typer.Option("--sampler", metavar="|".join(study.SAMPLERS), help="Who chooses values.")
]
_Tasks = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Slurm tasks at once.")
]
_Pruner = Annotated[
    str, typer.Option("--pruner", metavar="|".join(study.PRUNERS), help="Who ends trials early.")
]

_RecipeOrLook = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE|ls|show",
        help="A recipe; or ls, or show SEARCH.",
        autocompletion=completion.complete_recipe_or_look,
    ),
]
_Values = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=RANGE...",
        help="optim.lr=log:0.01..0.3 model.gate_factor=0.25..0.75 model.heads=2,4",
        autocompletion=completion.complete_axis,
    ),
]


@trusting
@tabular
def search(
    recipe: _RecipeOrLook,
    values: _Values = None,
    trials: Annotated[
        int, typer.Option("--trials", "-n", min=1, metavar="N", help="So many in all.")
    ] = 20,
    sampler: _Sampler = "tpe",
    pruner: _Pruner = "median",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the sampler.")] = 0,
    metric: Annotated[
        str, typer.Option("--metric", metavar="KEY", help="Of evaluations; the least is best.")
    ] = "top1_error",
    maximize: Annotated[
        bool, typer.Option("--maximize", help="The largest --metric is the best.")
    ] = False,
    name: Annotated[
        str, typer.Option("--name", help="Its name [recipe and a digest of the values].")
    ] = "",
    on_end: options.OnEnd = None,
    launcher: options.Launcher = "local",
    sbatch: options.Sbatch = None,
    jobs: _Tasks = None,
    data_dir: options.DataDir = None,
    runs_dir: options.RunsDir = None,
    *,
    form: output.Form,
) -> int | None:
    """Train a recipe with values that Optuna chooses, for the least error. None is trained twice.

    The same command again goes on where it was; in another terminal, or on another machine that
    sees the folder, it works on the same search. Each trial is a run; one that is ended early is a
    stopped run with the reason.
    """
    folder = settings.runs_dir(runs_dir)
    if recipe in ("ls", "show"):
        _look(folder, recipe, values, form)
        return None
    on_slurm = on_cluster.asked(launcher, sbatch, {"--on-end": on_end})
    if jobs and not on_slurm:
        raise UsageError("--jobs: of --launcher slurm; here start the same command once more")
    found = study.open_or_create(
        folder,
        recipe,
        [*(values or []), *options.data_override(data_dir)],
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        metric=metric,
        maximize=maximize,
        name=name,
        allow=require,
        warn=_say_unusable,
    )
    if on_slurm:
        return on_cluster.give("search", found.path, _tasks(found, trials), jobs, sbatch)
    return _run(found, trials, form, on_end)


def _say_unusable(one: Unusable) -> None:
    diagnostics.warn(f"{one.key}={one.value} can never be used: {one.why}")


def _look(folder: Path, what: str, values: list[str] | None, form: output.Form) -> None:
    if what == "ls":
        _list(folder, form)
    else:
        _show(_find(folder, (values or ["latest"])[0]), form)


def _tasks(found: study.Search, trials: int) -> list[str]:
    """An argument for each trial without a result, as far as there are values for new ones."""
    new, left = max(0, trials - len(found.frozen())), found.left()
    return [str(trials)] * (len(found.still_due()) + (new if left is None else min(new, len(left))))


def _run(found: study.Search, trials: int, form: output.Form, on_end: str | None) -> int:
    diagnostics.note(f"search {found.asked.id}: {trials} trials")
    outcome = work(found, trials=trials, say=diagnostics.note, on_end=on_end)
    _show(found, form)
    if outcome.interrupted:
        diagnostics.note("stopped; the same command goes on where it was")
        return outcome.interrupted
    if outcome.lacking:
        raise DgcError(f"search {found.asked.id}: {outcome.lacking}")
    if (made := len(found.frozen())) < trials and found.left() == []:
        diagnostics.note(
            f"search {found.asked.id}: {made} of {trials} trials: no other values are left to"
            " choose"
        )
    if outcome.left:
        names = ", ".join(map(str, outcome.left))
        raise DgcError(f"search {found.asked.id}: trials {names} have no result")
    return int(ExitCode.DONE)


def _find(folder: Path, name: str) -> study.Search:
    known = sorted(study.list_searches(folder), key=lambda one: one.asked.created)
    return find_by_id(name, known, lambda one: one.asked.id, "search", "searches")


def _show(found: study.Search, form: output.Form) -> None:
    columns = [
        TableColumn("trial", right=True),
        TableColumn("swept", "values", in_files="values"),
        TableColumn("state", style=state_style),
        TableColumn(found.asked.metric, show=_figure, right=True),
        TableColumn("best", show=lambda value: "best" if value else ""),
        TableColumn("run"),
        TableColumn("reason", show=lambda value: str(value or ""), prose=True),
    ]
    refused = found.refused()
    facts = {
        "search": found.asked.id,
        "direction": "maximize" if found.asked.maximize else "minimize",
        "best": found.best(),
        "refused": [{"draws": count, "reason": why} for why, count in refused.items()],
    }
    output.table("trials", columns, found.rows(), form, **facts)
    for why, count in refused.items():
        diagnostics.note(f"{count} draw{'s' * (count != 1)} refused: {why}")


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _list(folder: Path, form: output.Form) -> None:
    rows = [
        {
            "id": one.asked.id,
            "trials": len(one.frozen()),
            "due": len(one.still_due()),
            "best": one.best(),
            "values": " ".join(one.asked.values),
        }
        for one in study.list_searches(folder)
    ]
    columns = [
        TableColumn("id", "search"),
        TableColumn("trials", right=True),
        TableColumn("due", right=True),
        TableColumn("best", "best trial", right=True),
        TableColumn("values"),
    ]
    output.table("searches", columns, rows, form)
