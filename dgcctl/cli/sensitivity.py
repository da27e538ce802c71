"""`dgcctl sensitivity`: what becomes of a run's network when one of its layers keeps more or fewer
channels.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dgcctl.cli._ui import diagnostics, options, output
from dgcctl.cli._ui.flags import tabular
from dgcctl.cli._ui.output import TableColumn
from dgcctl.cli._ui.trust import trusting
from dgcctl.core import numbers, settings
from dgcctl.core.launch.query import query
from dgcctl.core.runs import find


@trusting
@tabular
def sensitivity(
    run: options.RunArgument = "latest",
    shares: Annotated[
        str,
        typer.Option("--shares", metavar="S,S...", help="Shares of kept channels to try."),
    ] = "0.125,0.25,0.5,0.75",
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=1, help="Only N images, spread over the set."),
    ] = 500,
    step: Annotated[
        str, typer.Option("--step", metavar="N|best|last", help="Which checkpoint.")
    ] = "last",
    ema: Annotated[bool, typer.Option("--ema", help="The averaged weights.")] = False,
    runs_dir: options.RunsDir = None,
    *,
    form: output.Form,
) -> None:
    """Top-1 error when one layer at a time keeps another share of its channels.

    All other layers stay as they were trained; nothing is trained again. Where the error hardly
    rises, a layer can keep fewer: see dgc.allocate, and model.gate_factors or model.convert.layers
    in a recipe.
    """
    found = find.find_run(run, settings.runs_dir(runs_dir))
    arguments = [f"--run-dir={found.path}", f"--step={step}", f"--shares={shares}"]
    arguments += [f"--limit={limit}", *(["--ema"] if ema else [])]
    answer = query("dgc.jobs.sensitivity", arguments, say=diagnostics.note)
    now = answer["now"]
    if form is output.Form.JSON:
        output.document(run=found.id, **answer)
        return
    columns = [
        TableColumn("name", "layer"),
        TableColumn("channels", right=True, show=numbers.count),
        TableColumn("share", "kept now", _percent, right=True),
        *(TableColumn(_key(s), f"error at {_percent(s)}", _error, True) for s in answer["shares"]),
    ]
    output.table("layers", columns, [_row(layer) for layer in answer["layers"]], form)
    diagnostics.note(
        f"{found.id}: error {_error(now['top1_error'])} as it was trained, on"
        f" {numbers.count(answer['samples'])} images"
    )


def _row(layer: dict[str, Any]) -> dict[str, Any]:
    return {**layer, **{_key(at["share"]): at["top1_error"] for at in layer["at"]}}


def _key(share: float) -> str:
    return f"error_at_{share:g}"


def _percent(share: Any) -> str:
    return f"{100 * share:.4g} %"


def _error(value: Any) -> str:
    return f"{value:.2f} %"
