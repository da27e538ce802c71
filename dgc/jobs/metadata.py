"""`python -m dgc.jobs.metadata`: what a recipe stands on, measured now: content digest of the data,
MACs, parameters.

    python -m dgc.jobs.metadata (--run-dir RUN [--data-dir DIR] | --recipe RECIPE) [--data-only]
        --json OUT

OUT = {"data": {...} as in data.json, "model": {...} as in model.json, of a run also "result": what
the checkpoint behind metrics.json executes}. Where the data is not there and the model was asked
for too, "data_error" says why instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from dgc.errors import DataError, DgcError
from dgc.jobs.reply import reply
from dgc.recipe.load import Recipe, find_recipe, load_recipe
from dgc.run.checkpoint_store import list_checkpoints, read_verified, structure_in, structure_of
from dgc.run.events import EventKind, live_rows, read_events
from dgc.run.paths import RunDir
from dgc.talk import run_program
from dgc.train import build, costs, mixed_precision, recorder
from dgc.train.memory_format import choose
from dgc.train.state import MODEL


def measure(recipe: Recipe, *, model: bool = True, run: RunDir | None = None) -> dict[str, Any]:
    """Load data and network of a recipe.
    Raises DataError where only the data was asked for and is not there.
    """
    if not model:
        return {"data": build.data_facts(build.open_data(recipe))}
    found: dict[str, Any] = {"model": _model_facts(recipe, run)}
    if run is not None:
        found["result"] = _result(recipe, run)
    try:
        found["data"] = build.data_facts(build.open_data(recipe))
    except DataError as error:
        found["data_error"] = str(error)
    return found


def _model_facts(recipe: Recipe, run: RunDir | None) -> dict[str, Any]:
    device = torch.device("cpu")
    layout = choose(recipe, device)
    told = None if run is None else structure_of(run)
    model = build.build_model(recipe, device, layout=layout, structure=told)
    return recorder.model_facts(recipe, model, layout, mixed_precision.choose(recipe, device).amp)


def _result(recipe: Recipe, run: RunDir) -> dict[str, Any]:
    """{"step", "macs"} of the checkpoint whose figures are in metrics.json;
    else {"step", "why_not"}.
    """
    steps = (
        [row["step"] for row in live_rows(read_events(run)) if row["kind"] == EventKind.EVAL]
        if run.events.exists()
        else []
    )
    if not steps:
        return {"why_not": "nothing was evaluated yet"}
    kept = {found.step: found.path for found in list_checkpoints(run) if not found.superseded}
    if steps[-1] not in kept:
        return {
            "step": steps[-1],
            "why_not": f"the checkpoint of step {steps[-1]}, which was evaluated, is not kept",
        }
    try:
        files = read_verified(kept[steps[-1]])
        tensors, told = (
            safetensors.torch.load(files[MODEL]),
            structure_in(files, str(kept[steps[-1]])),
        )
        return {"step": steps[-1], "macs": costs.of_checkpoint(recipe, tensors, told)}
    except (DgcError, KeyError) as error:
        return {"step": steps[-1], "why_not": str(error)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.metadata")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--run-dir", type=Path)
    place.add_argument("--recipe")
    parser.add_argument("--data-dir", type=Path, help="where the images of --run-dir are now")
    parser.add_argument("--data-only", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()

    def make() -> dict[str, Any]:
        if options.run_dir is None:
            return measure(load_recipe(find_recipe(options.recipe)), model=not options.data_only)
        run = RunDir(options.run_dir)
        recipe = build.at_its_place(load_recipe(run.recipe), run.data, options.data_dir)
        return measure(recipe, model=not options.data_only, run=run)

    return reply(options.json, make)


if __name__ == "__main__":
    run_program(main)
