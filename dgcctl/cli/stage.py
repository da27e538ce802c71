"""`dgcctl stage ...`: what dvc.yaml calls. Each stage reads a recipe and writes one output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgcctl.cli._ui import diagnostics, options
from dgcctl.cli._ui.lazy import App
from dgcctl.core import dvc_stages, settings

app = App("The stages of dvc.yaml.")
Out = Annotated[Path, typer.Option("--out", metavar="PATH", help="What the stage writes.")]
Exported = Annotated[
    Path, typer.Option("--run", metavar="DIR", help="The exported run of the train stage.")
]


@app.command("prepare")
def prepare(recipe: options.RecipeArgument, out: Out) -> None:
    """Check the data set and write its digest and counts;
    say what is missing where it is absent.
    """
    data = dvc_stages.prepare(recipe, out)
    told = [f"{key} {value}" for key, value in data.items() if not isinstance(value, dict)]
    diagnostics.note(f"data: {', '.join(told)}")


@app.command("train")
def train(recipe: options.RecipeArgument, out: Out, runs_dir: options.RunsDir = None) -> None:
    """Train, or go on where an interrupted `dvc repro` was; export the finished run."""
    run = dvc_stages.train(recipe, out, settings.runs_dir(runs_dir), diagnostics.note)
    diagnostics.note(f"run {run.id} exported to {out}")


@app.command("evaluate")
def evaluate(recipe: options.RecipeArgument, run: Exported, out: Out) -> None:
    """Evaluate the exported weights; write the figures and what they are held against."""
    found = dvc_stages.evaluate(recipe, run, out)
    diagnostics.note(f"top-1 error {found['top1_error']:.2f} %")


@app.command("report")
def report(
    recipe: options.RecipeArgument,
    run: Exported,
    evaluation: Annotated[
        Path, typer.Option("--evaluation", metavar="FILE", help="Output of the evaluate stage.")
    ],
    out: Out,
    pictures: Annotated[
        Path, typer.Option("--plots", metavar="DIR", help="Where the pictures go.")
    ],
) -> None:
    """Write the report page and its pictures."""
    dvc_stages.report(recipe, run, evaluation, out, pictures)
