"""Shares that `dgc.allocate` chose against one share for all layers, and a teacher against none:

    python -m benchmarks.allocation FOLDER --data-dir data/cifar10_jpeg [--seeds 0,1,2]
    python -m benchmarks.allocation FOLDER --table docs/studies/allocation

A small ResNet is trained dense, converted, and fine-tuned with either. FOLDER keeps weights and one JSON
file a cell: a cell that is there is not computed again. See docs/studies/allocation/README.md.
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

import dgc
from dgc.layers.macs import count
from dgc.schedule import cosine
from dgc.train.distillation import Teacher

WIDTHS, EPOCHS, TUNED, BATCH, RATE, TUNED_RATE = (16, 32, 64), 20, 10, 64, 0.1, 0.05
BUDGETS = (0.25, 0.5)  # what one share for all layers costs
CHOSEN_ON = 256  # training images that the shares are chosen by
MEAN, STD = (0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)


class SmallResNet(nn.Module):
    """Two of torchvision's basic blocks at each of 16, 8 and 4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        stages, width = [], 16
        for out in WIDTHS:
            stages.append(_stage(width, out))
            width = out
        self.stages, self.fc = nn.Sequential(*stages), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(torch.relu(self.bn1(self.conv1(x))))
        answer: Tensor = self.fc(x.mean((2, 3)))
        return answer


def _stage(width: int, out: int) -> nn.Sequential:
    down = None
    if width != out:
        down = nn.Sequential(nn.Conv2d(width, out, 1, 2, bias=False), nn.BatchNorm2d(out))
    return nn.Sequential(
        BasicBlock(width, out, 1 if down is None else 2, down), BasicBlock(out, out)
    )


class Photos:
    """All images of one half in memory, normalised."""

    def __init__(self, folder: Path) -> None:
        names = sorted(path.name for path in folder.iterdir())
        files = [
            (path, at)
            for at, name in enumerate(names)
            for path in sorted((folder / name).iterdir())
        ]
        pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        self.images = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
            :, None, None
        ]
        self.labels = torch.tensor([label for _, label in files])

    def batches(self, dice: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """In random order, cropped with four pixels of zeros around, and flipped."""
        for picked in torch.split(torch.randperm(len(self.images), generator=dice), BATCH):
            padded = F.pad(self.images[picked], (4, 4, 4, 4))
            at = torch.randint(0, 9, (len(picked), 2), generator=dice).tolist()
            flips = torch.rand(len(picked), generator=dice).lt(0.5).tolist()
            crops = [p[:, y : y + 32, x : x + 32] for p, (y, x) in zip(padded, at, strict=True)]
            yield (
                torch.stack([c.flip(2) if f else c for c, f in zip(crops, flips, strict=True)]),
                self.labels[picked],
            )


def train(
    model: nn.Module,
    photos: Photos,
    epochs: int,
    lr: float,
    seed: int,
    teacher: Teacher | None = None,
) -> None:
    dice = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(photos.images) // BATCH)
    rule = torch.optim.SGD(model.parameters(), lr, 0.9, weight_decay=5e-4, nesterov=True)
    schedule = dgc.PruningSchedule(model, steps) if list(dgc.iter_dgc(model)) else None
    model.train()
    step = 0
    for _ in range(epochs):
        for images, labels in photos.batches(dice):
            rule.param_groups[0]["lr"] = cosine(step / steps, lr)
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            if teacher is not None:
                loss = teacher.taught(loss, logits, images)
            rule.zero_grad()
            (loss if schedule is None else loss + schedule.penalty()).backward()  # type: ignore[no-untyped-call]
            rule.step()
            step += 1
            if schedule is not None:
                schedule.step()


@torch.inference_mode()
def error(model: nn.Module, photos: Photos) -> float:
    """Percent wrong, with the channels off that are off now."""
    model.eval()
    wrong = sum(
        int((model(images).argmax(1) != labels).sum())
        for images, labels in zip(
            torch.split(photos.images, 250), torch.split(photos.labels, 250), strict=True
        )
    )
    return 100 * wrong / len(photos.labels)


@dataclass(frozen=True)
class Cell:
    """`budget`: the MACs of the converted network with this share in every layer."""

    name: str
    budget: float | None = None
    allocated: bool = False
    labels: bool = False
    taught: bool = False  # by the dense network that it was converted from

    def file(self, folder: Path, seed: int) -> Path:
        return folder / f"{self.name}{'' if self.budget is None else f'-{self.budget}'}-{seed}.json"


DENSE = Cell("dense")
CELLS = [DENSE]
for budget in BUDGETS:
    CELLS += [
        Cell("one-share", budget),
        Cell("one-share-taught", budget, taught=True),
        Cell("allocated", budget, allocated=True),
        Cell("allocated-by-loss", budget, allocated=True, labels=True),
    ]


def dense(seed: int, folder: Path, photos: Photos, held: Photos) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = SmallResNet()
    train(model, photos, EPOCHS, RATE, seed)
    torch.save(model.state_dict(), folder / f"dense-{seed}.pt")
    return {"error": error(model, held), "macs": count(model, 32).executed}


def converted(cell: Cell, seed: int, folder: Path, photos: Photos, held: Photos) -> dict[str, Any]:
    model = SmallResNet()
    model.load_state_dict(torch.load(folder / f"dense-{seed}.pt", weights_only=True))
    assert cell.budget is not None
    # the defaults of `train.teacher_temperature` and `train.teacher_weight`
    teacher = Teacher(copy.deepcopy(model).eval(), 4.0, 0.5, {}) if cell.taught else None
    dgc.convert(model, photos.images[:1], gate_factor=cell.budget)
    shares: dict[str, float] = {}
    if cell.allocated:
        dice = torch.Generator().manual_seed(seed)
        picked = torch.randperm(len(photos.images), generator=dice)[:CHOSEN_ON]
        labels = photos.labels[picked] if cell.labels else None
        budget = count(model, 32).promised
        shares = dgc.allocate(model, photos.images[picked], budget, labels=labels).gate_factors
        dgc.set_gate_factors(model, shares)
    dgc.set_progress(model, 1.0)
    at_once = error(model, held)
    dgc.set_progress(model, 0.0)
    train(model, photos, TUNED, TUNED_RATE, seed, teacher)
    dgc.set_progress(model, 1.0)
    macs = count(model, 32).executed
    return {"error": error(model, held), "at_once": at_once, "macs": macs, "shares": shares}


def compute(folder: Path, data: Path, seeds: list[int]) -> None:
    """Cells of the smaller budget first, seed by seed."""
    folder.mkdir(parents=True, exist_ok=True)
    photos, held = Photos(data / "train"), Photos(data / "val")
    for budget, seed in itertools.product(BUDGETS, seeds):
        for cell in CELLS:
            out = cell.file(folder, seed)
            if out.exists() or cell.budget not in (None, budget):
                continue
            given = (seed, folder, photos, held)
            found = dense(*given) if cell is DENSE else converted(cell, *given)
            row = {"cell": cell.name, "budget": cell.budget, "seed": seed, **found}
            out.write_text(json.dumps(row))
            print({key: value for key, value in row.items() if key != "shares"}, flush=True)


def table(folder: Path, out: Path) -> None:
    """results.csv, and the gains of the allocated shares, seed against seed."""
    rows = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    rows.sort(
        key=lambda row: (row["budget"] or 0, row["cell"] != "one-share", row["cell"], row["seed"])
    )
    columns = ("cell", "budget", "seed", "macs", "at_once", "error", "shares")
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "shares": json.dumps(row.get("shares", {}))} for row in rows)
    by_cell = {(row["cell"], row["budget"], row["seed"]): row for row in rows}
    for budget, cell, key in itertools.product(
        BUDGETS, ("allocated", "allocated-by-loss", "one-share-taught"), ("at_once", "error")
    ):
        gains = [
            row[key] - by_cell[cell, budget, seed][key]
            for (name, share, seed), row in by_cell.items()
            if (name, share) == ("one-share", budget) and (cell, budget, seed) in by_cell
        ]
        if len(gains) > 1:
            spread = statistics.stdev(gains) / len(gains) ** 0.5
            said = f"{statistics.fmean(gains):+.2f}, standard error {spread:.2f}, of {len(gains)} seeds"
            print(f"{budget} {cell} {key}: lower by {said}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.allocation")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir", type=Path, default=Path("data/cifar10_jpeg"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        table(given.folder, given.table)
    else:
        compute(given.folder, given.data_dir, [int(word) for word in given.seeds.split(",")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
