"""Options that several commands share, each spelt once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from dgcctl.cli._ui.completion import (
    complete_filter,
    complete_key,
    complete_recipe,
    complete_run,
    complete_run_or_filter,
)

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of a shipped one.",
        autocompletion=complete_recipe,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Changes of the recipe, e.g. optim.lr=0.05.",
        autocompletion=complete_key,
    ),
]
RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="An id, a unique prefix of one, a path, or `latest`.",
        autocompletion=complete_run,
    ),
]
RunsOrFilters = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN|FILTER...",
        help="Ids, prefixes, paths; or e.g. 'tag:study'.",
        autocompletion=complete_run_or_filter,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        "-w",
        metavar="FILTER",
        help="Every run that fits, e.g. 'tag:study'.",
        autocompletion=complete_filter,
    ),
]
RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", help="Folder of the runs [DGCCTL_RUNS_DIR, ./runs]."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Folder of this data set [data.dir, DGCCTL_DATA_DIR/NAME, ./data/NAME].",
    ),
]


def data_override(folder: Path | None) -> list[str]:
    """`--data-dir FOLDER` as an override of the recipe,
    whatever characters the folder's name has.
    """
    return [f"data.dir={json.dumps(str(folder.absolute()))}"] if folder else []


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to every question.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")]
Launcher = Annotated[
    str,
    typer.Option("--launcher", metavar="local|slurm", help="Here, or as an array of Slurm tasks."),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch", metavar="OPTION", help="An option for sbatch, as --sbatch=--partition=gpu."
    ),
]
OnEnd = Annotated[
    str | None,
    typer.Option(
        "--on-end",
        metavar="COMMAND",
        help="Run this in a shell when the run has ended; $DGCCTL_RUN_STATE and others tell how.",
    ),
]
Check = Annotated[
    bool, typer.Option("--check", help="End with 11 where a figure misses what is expected of it.")
]
