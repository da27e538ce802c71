"""`python -m dgc.jobs.profile RECIPE [KEY=VALUE ...] --json OUT`: MACs and parameters of a recipe's
network, layer by layer.

A process of its own, so that `dgcctl profile` needs no torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dgc.jobs.reply import reply
from dgc.recipe.load import find_recipe, load_recipe
from dgc.run.paths import RunDir
from dgc.talk import run_program


def profile(recipe_file: Path | str, overrides: list[str], progress: float = 1.0) -> dict[str, Any]:
    """Rows and totals at a point of the pruning schedule (1.0: its end)."""
    from dgc import set_progress
    from dgc.hub import recorded_networks
    from dgc.layers.macs import count
    from dgc.run.checkpoint_store import structure_of

    recipe, file = load_recipe(recipe_file, overrides), Path(recipe_file)
    of_run = file.name == "recipe.yaml" and not overrides
    told = structure_of(RunDir(file.parent)) if of_run else None
    model = (
        recorded_networks.recorded(recipe, told)
        if told
        else recorded_networks.fresh(recipe, weights=False).model
    )
    set_progress(model, progress)
    counted = count(model, recipe.data.image_size).as_dict()
    totals = {key: counted[key] for key in ("params", "dense", "promised", "executed")}
    return {
        "recipe": recipe.name,
        "image_size": recipe.data.image_size,
        "layers": counted["rows"],
        "totals": totals,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.jobs.profile")
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--progress", type=float, default=1.0)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args(arguments)
    return reply(
        given.json, lambda: profile(find_recipe(given.recipe), given.overrides, given.progress)
    )


if __name__ == "__main__":
    run_program(main)
