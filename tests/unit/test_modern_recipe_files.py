"""The recipes in recipes/modern: each loads, and trains a converted network of torchvision on the
images that come with the package.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dgc.recipe.load import dump_recipe, load_recipe, recipes_dir
from dgc.run.events import read_events
from dgc.run.paths import RunDir
from tests.faults.training import train

FILES = sorted((recipes_dir() / "modern").glob("*.yaml"))
SMALL = [
    "data.name=fashion_mnist", "data.image_size=32", "data.resize=null", "data.augment=crop_flip",
    "data.limit_train=48", "data.limit_val=20", "data.workers=0", "train.batch_size=16",
    "train.max_steps=4", "train.threads=1", "train.epochs=3", "optim.warmup_epochs=1",
]  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_it_trains(file: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.recipe.write_text(dump_recipe(load_recipe(file, SMALL)))
    done = train(run)
    assert done.returncode == 0, done.stderr
    steps = [event for event in read_events(run) if event["kind"] == "step"]
    assert len(steps) == 4
    rates = [row["lr"] for row in steps]
    assert rates[0] < rates[1] < rates[2], "the warm-up is three steps long"
    assert "ema_top1_error" in run.metrics.read_text()
