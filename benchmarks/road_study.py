"""The runs of docs/studies/cifar10_jpeg_resnet18 in the order of its plan, one after another:

    python -m benchmarks.road_study RUNS_DIR [--data-dir FOLDER] [--seeds 0,1,2]

A cell whose run has ended is left alone and one that stopped goes on, so the same command can be given again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from dgc.run.status import State
from dgcctl.core.runs import listing

RECIPE = "recipes/studies/cifar10_jpeg_resnet18.yaml"
TUNED = ("train.epochs=6", "optim.lr=0.05")


@dataclass(frozen=True)
class Cell:
    """One training: what it changes in the recipe; whether it starts from the dense one, and is taught by it."""

    name: str
    changes: tuple[str, ...] = ()
    tuned: bool = False
    taught: bool = False

    def tag(self, seed: int) -> str:
        return f"{self.name}-{seed}"


def _converted(name: str, share: float, *, taught: bool) -> Cell:
    return Cell(name, ("model.form=dgc", f"model.gate_factor={share}", *TUNED), True, taught)


DENSE = Cell("dense")
CELLS = (
    DENSE,
    _converted("quarter", 0.25, taught=False),
    _converted("quarter-taught", 0.25, taught=True),
    _converted("half", 0.5, taught=False),
    _converted("half-taught", 0.5, taught=True),
    Cell("dense-longer", TUNED, tuned=True),
)


def ended(runs: Path, tag: str) -> str | None:
    """The id of the run of this cell that is done."""
    for run in listing.list_runs(runs) if runs.is_dir() else []:
        if run.state == State.DONE and tag in (run.recipe.get("tags") or ()):
            return run.id
    return None


def train(cell: Cell, seed: int, runs: Path, data_dir: Path | None) -> int:
    tag = cell.tag(seed)
    if ended(runs, tag) is not None:
        return 0
    arguments = [f"seed={seed}", f"tags=[study,cifar10_jpeg,{tag}]", *cell.changes]
    dense = ended(runs, DENSE.tag(seed))
    if cell.tuned:
        arguments.append(f"--init={dense}")
    if cell.taught:
        arguments.append(f"--teacher={dense}")
    if data_dir is not None:
        arguments.append(f"--data-dir={data_dir}")
    options = ["--trust-code=benchmarks", f"--runs-dir={runs}", "--resume", "-q"]
    return subprocess.call([sys.executable, "-m", "dgcctl", "train", RECIPE, *arguments, *options])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.road_study")
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    given = parser.parse_args()
    for seed in map(int, given.seeds.split(",")):
        for cell in CELLS:
            if code := train(cell, seed, given.runs, given.data_dir):
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
