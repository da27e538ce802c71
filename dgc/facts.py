"""`python -m dgc.facts`: what a recipe stands on, measured now: content digest of the data, MACs, parameters.

    python -m dgc.facts (--run-dir RUN | --recipe RECIPE) [--data-only] --json OUT

OUT = {"data": {...} as in data.json, "model": {...} as in model.json}. Where the data is not there and the model was
asked for too, "data_error" says why instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from dgc import build
from dgc.answer import answer
from dgc.errors import DataError
from dgc.memory_format import choose
from dgc.recipe import Recipe, find_recipe, load_recipe
from dgc.records import RunDir
from dgc.train import record


def measure(recipe: Recipe, *, model: bool = True) -> dict[str, Any]:
    """Load data and network of a recipe. Raises DataError where only the data was asked for and is not there."""
    if not model:
        return {"data": build.data_facts(build.open_data(recipe))}
    found: dict[str, Any] = {"model": _model_facts(recipe)}
    try:
        found["data"] = build.data_facts(build.open_data(recipe))
    except DataError as error:
        found["data_error"] = str(error)
    return found


def _model_facts(recipe: Recipe) -> dict[str, Any]:
    device = torch.device("cpu")
    layout = choose(recipe, device)
    return record.model_facts(recipe, build.build_model(recipe, device, layout=layout), layout)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.facts")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--run-dir", type=Path)
    place.add_argument("--recipe")
    parser.add_argument("--data-only", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()

    def make() -> dict[str, Any]:
        if options.run_dir:
            run = RunDir(options.run_dir)
            recipe = build.at_its_place(load_recipe(run.recipe), run.data)
        else:
            recipe = load_recipe(find_recipe(options.recipe))
        return measure(recipe, model=not options.data_only)

    return answer(options.json, make)


if __name__ == "__main__":
    sys.exit(main())
