"""`dgcctl launch slurm RECIPE`: give a training to a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgc.recipe.load import find_recipe, load_recipe
from dgcctl.cli._ui import judged, options, output
from dgcctl.cli._ui.lazy import App
from dgcctl.cli._ui.trust import require, trusting
from dgcctl.core import settings
from dgcctl.core.launch import slurm as template

app = App("Give a training to a cluster.")


@app.command("slurm")
@trusting
def slurm(
    recipe: options.RecipeArgument,
    overrides: options.Overrides = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines.")] = 1,
    gpus_per_node: Annotated[
        int, typer.Option("--gpus-per-node", min=0, help="GPUs and so ranks of each [0: CPU].")
    ] = 1,
    cpus_per_task: Annotated[
        int, typer.Option("--cpus-per-task", min=1, help="CPU cores of each machine.")
    ] = 8,
    time: Annotated[
        str, typer.Option("--time", metavar="H:M:S", help="Longest time of one go.")
    ] = "24:00:00",
    partition: Annotated[str | None, typer.Option("--partition", help="Slurm partition.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="Slurm account.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            "--sbatch", metavar="OPTION", help="A further option, as --sbatch=--constraint=a100."
        ),
    ] = None,
    data_dir: options.DataDir = None,
    runs_dir: options.RunsDir = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script; submit nothing.")
    ] = False,
) -> None:
    """Submit a batch job that trains a recipe, resumes after preemption, and asks to be queued
    again (exit 75).
    """
    wanted = load_recipe(
        find_recipe(recipe), [*(overrides or []), *options.data_override(data_dir)]
    )
    require(wanted)
    judged.say_what_no_longer_holds([wanted])
    job = template.Job(
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_task=cpus_per_task,
        time=time,
        partition=partition,
        account=account,
        extra=tuple(sbatch or ()),
    )
    text = template.script(wanted, job, settings.runs_dir(runs_dir), Path.cwd())
    output.write(text) if dry_run else output.line(template.submit(text))
