"""A training that is long enough for CUDA graphs, run in this process, interrupted and resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from dgc.run.checkpoint_store import MODEL_FILE, list_checkpoints
from dgc.run.events import EventKind, live_rows, read_events
from dgc.run.paths import RunDir
from dgc.train.main import run_training
from dgc.train.session import Options
from dgc.train.signals import Signals

RECIPE = """
name: tiny
title: three DGC layers, for tests
source: ours
seed: 3
model: {name: dydensenet, stem: cifar, num_classes: 10, gate_factor: 0.25, stages: [1, 1, 1], growth: [4, 4, 4]}
data: {name: fashion_mnist, augment: crop_flip, image_size: 32, mean: [0.286, 0.286, 0.286], std: [0.353, 0.353, 0.353],
       workers: 0, limit_train: 268, limit_val: 30}
optim: {lr: 0.05}
train: {epochs: 2, batch_size: 16, log_every: 3, threads: 1, EXTRA}
eval: {batch_size: 16}
checkpoint: {every_steps: 10, keep_last: 9}
"""  # 17 batches an epoch, the last of 12 images


def trained(run: RunDir, extra: str, *, resume: bool = False) -> list[Any]:
    """What each step logged of the run that stands."""
    run.path.mkdir(exist_ok=True)
    run.recipe.write_text(RECIPE.replace("EXTRA", extra))
    run_training(run, Options(resume=resume), Signals())
    found = [row for row in live_rows(read_events(run)) if row["kind"] == EventKind.STEP]
    return [(e["step"], e["loss"], e["error"], e["gate_l1"], e["inactive"]) for e in found]


def interrupted(run: RunDir, folder: Path, step: int) -> RunDir:
    """As if it had been killed after a checkpoint."""
    shutil.copytree(run.path, folder, symlinks=True)
    for found in list_checkpoints(RunDir(folder)):
        if found.step > step:
            shutil.rmtree(found.path)
    return RunDir(folder)


def weights(run: RunDir) -> bytes:
    return (list_checkpoints(run)[-1].path / MODEL_FILE).read_bytes()
