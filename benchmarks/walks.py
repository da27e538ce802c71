"""Which files of `dgc` an image passes: `python -m benchmarks.walks` trains and evaluates a small
network and names every file in which a function ran meanwhile, with its functions.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import dgc
from dgc.data import eval_loader
from dgc.data.loader import Loader
from dgc.recipe.load import parse_recipe
from dgc.run.paths import RunDir
from dgc.train import build, loop, step_rows
from dgc.train.main import run_training
from dgc.train.session import Options
from dgc.train.signals import Signals
from dgc.train.step import Updater

ROOT = Path(dgc.__file__).parent
RECIPE = """
name: tiny
title: a small network, for a walk
source: ours
seed: 3
model: {name: dydensenet, stem: cifar, num_classes: 10, gate_factor: 0.25, stages: [2, 2], growth: [8, 8]}
data: {name: fashion_mnist, augment: crop_flip, image_size: 32, mean: [0.286, 0.286, 0.286],
       std: [0.353, 0.353, 0.353], workers: 0, limit_train: 64, limit_val: 64}
optim: {lr: 0.05}
train: {epochs: 1, batch_size: 8, log_every: 3, threads: 1, device: cpu}
eval: {batch_size: 16}
"""
Walk = dict[str, dict[str, None]]


@contextmanager
def noted(walk: Walk) -> Iterator[None]:
    """Within the block each call of a function of `dgc` is noted, by file."""

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)) and code.co_name[0] != "<":
            name = str(Path(code.co_filename).relative_to(ROOT.parent))
            walk.setdefault(name, {})[code.co_qualname] = None

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def in_training() -> tuple[Walk, Walk]:
    """What passes between the data set and the changed weights, and from a row to the log."""
    image: Walk = {}
    metric: Walk = {}
    step, epoch, flush = Updater.step, Loader.epoch, step_rows.flush

    def noted_step(*args: Any) -> Any:
        with noted(image):
            return step(*args)

    def noted_epoch(*args: Any, **options: Any) -> Iterator[Any]:
        batches = epoch(*args, **options)
        while True:
            with noted(image):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def noted_flush(*args: Any) -> None:
        with noted(metric):
            flush(*args)

    changes: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
        (Updater, "step", noted_step),
        (Loader, "epoch", noted_epoch),
        (loop, "flush", noted_flush),
    )
    before = [getattr(place, name) for place, name, _ in changes]
    for place, name, changed in changes:
        setattr(place, name, changed)
    try:
        with tempfile.TemporaryDirectory() as folder:
            run = RunDir(Path(folder) / "run")
            run.path.mkdir()
            run.recipe.write_text(RECIPE)
            run_training(run, Options(), Signals())
    finally:
        for (place, name, _), old in zip(changes, before, strict=True):
            setattr(place, name, old)
    return image, metric


def in_inference() -> Walk:
    """From the data set through the plan to the logits; making the plan is part of it."""
    recipe = parse_recipe(RECIPE, "recipe.yaml")
    images = build.open_data(recipe)
    model = dgc.create_model(recipe.model.name, **recipe.model.kwargs()).eval()
    data = recipe.data
    loader = eval_loader(
        images.val,
        batch_size=16,
        mean=data.mean,
        std=data.std,
        rank=0,
        world_size=1,
        workers=0,
        device=torch.device("cpu"),
    )
    walk: Walk = {}
    with noted(walk), torch.inference_mode():
        plan = dgc.compile_for_inference(model)
        for batch in loader.epoch():
            plan(batch.images)
    return walk


def main() -> int:
    image, metric = in_training()
    for title, walk in (
        ("an image in training", image),
        ("a metric, from its row to the log", metric),
        ("an image in inference", in_inference()),
    ):
        print(f"{title}: {len(walk)} files, {sum(map(len, walk.values()))} functions")
        for name in sorted(walk):
            print(f"  {name}: {', '.join(walk[name])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
