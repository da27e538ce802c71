"""`dgcctl profile`: what each layer of a recipe's network costs, counted three ways."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dgc.recipe.load import find_recipe, load_recipe
from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.trust import trusting
from dgcctl.core import numbers
from dgcctl.core.launch.query import query

_COLUMNS = [
    TableColumn("name", "layer"),
    TableColumn("kind"),
    TableColumn("output", "output CxHxW", right=True),
    TableColumn("params", "parameters", numbers.count, right=True),
    TableColumn("dense", "MACs dense", numbers.count, right=True),
    TableColumn("promised", "MACs promised", numbers.count, right=True),
    TableColumn("executed", "MACs executed", numbers.count, right=True),
]


@trusting
@tabular
def profile(
    recipe: options.RecipeArgument,
    overrides: options.Overrides = None,
    progress: Annotated[
        float,
        typer.Option(
            "--progress", min=0.0, max=1.0, help="At which point of the pruning schedule."
        ),
    ] = 1.0,
    every: Annotated[bool, typer.Option("--all", help="Layers that cost nothing too.")] = False,
    *,
    form: output.Form,
) -> None:
    """MACs and parameters of each layer, for one image.

    Dense: the same network with plain convolutions. Promised: the authors' counter. Executed: what
    is really multiplied, gates included.
    """
    # Here too, for a mistake in it is told at once: the job's torch takes seconds to load.
    load_recipe(find_recipe(recipe), overrides or [])
    arguments = [str(find_recipe(recipe)), *(overrides or []), f"--progress={progress}"]
    found = query("dgc.jobs.profile", arguments, say=diagnostics.note)
    rows = [
        _row(layer) for layer in found["layers"] if every or layer["params"] or layer["promised"]
    ]
    if form is output.Form.JSON:
        output.document(
            recipe=found["recipe"],
            image_size=found["image_size"],
            layers=rows,
            totals=found["totals"],
        )
        return
    output.table(
        "layers",
        _COLUMNS,
        [*rows, {"name": "total", "kind": "", "output": "", **found["totals"]}],
        form,
    )


def _row(layer: dict[str, Any]) -> dict[str, Any]:
    return {**layer, "output": "x".join(map(str, layer["shape"]))}
