"""The same evaluation with every number of images loaded at once and of workers:
`dgc.jobs.evaluate` as it is asked for.

RANK=r WORLD_SIZE=n ... python -m tests.distributed.evaluations FOLDER      (the first rank writes FOLDER/<n>.json)

FOLDER holds w.safetensors and r.yaml.
"""

import json
import sys
from pathlib import Path

import torch

from dgc.jobs import evaluate
from dgc.recipe.load import dump_recipe, load_recipe
from dgc.train.ranks import Ranks, join

LOADED_AT_ONCE = (1, 7, 50, 64, 100, 1000)
WORKERS = (0, 2)
SAME = ("top1_error", "top5_error", "loss", "samples", "per_class")


def all_of_them(folder: Path, ranks: Ranks) -> dict[str, dict[str, object]]:
    """{"64 at once, 2 workers, native": figures}."""
    torch.set_num_threads(1)
    found = {}
    for batch in LOADED_AT_ONCE:
        for workers in WORKERS:
            recipe = folder / f"{ranks.rank}-of-{ranks.world}.yaml"
            changes = [f"eval.batch_size={batch}", f"data.workers={workers}"]
            recipe.write_text(dump_recipe(load_recipe(folder / "r.yaml", changes)))
            for engine in ("eager", "auto") if workers == 0 else ("eager",):
                answer = evaluate.measure(asked(folder, recipe, engine), ranks)
                found[f"{batch} at once, {workers} workers, {engine}"] = {
                    key: answer[key] for key in SAME
                }
    return found


def asked(folder: Path, recipe: Path, engine: str):
    weights = folder / "w.safetensors"
    return evaluate.parse(
        [
            f"--weights={weights}",
            f"--recipe={recipe}",
            f"--engine={engine}",
            "--per-class",
            "--json=unused",
        ]
    )


def main() -> None:
    folder = Path(sys.argv[1])
    with join("cpu") as ranks:
        found = all_of_them(folder, ranks)
        if ranks.first:
            (folder / f"{ranks.world}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
