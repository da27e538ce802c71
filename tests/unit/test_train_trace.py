"""The project's own training loop repeats the released code's training run, step by step, in double
precision.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from dgc.data import eval_loader
from dgc.data.image_sets import ArraySet, View
from dgc.models.released import from_released
from dgc.recipe.load import load_recipe
from dgc.run.events import EventKind, read_events
from dgc.run.paths import RunDir
from dgc.train import build, save
from dgc.train.loop import train
from dgc.train.main import prepare
from dgc.train.ranks import Ranks
from dgc.train.recorder import Recorder
from dgc.train.session import Options
from dgc.train.signals import Signals

TRACE = Path(__file__).parents[1] / "golden" / "tiny_dydensenet_trace.npz"
RECIPE = """
name: trace
title: the reference run
source: ours
model: {name: dydensenet, stem: cifar, num_classes: 10, gate_factor: 0.25, stages: [2, 2, 2], growth: [8, 16, 32]}
data: {name: fashion_mnist, augment: none, image_size: 32, mean: [0.286, 0.286, 0.286], std: [0.353, 0.353, 0.353],
       workers: 0, limit_val: 20}
optim: {lr: 0.1}
train: {epochs: 6, batch_size: 32, dtype: float64, device: cpu}
eval: {batch_size: 20, every_epochs: 6}
"""
CPU = Ranks(rank=0, world=1, local_rank=0, device=torch.device("cpu"))


class InFileOrder:
    """The 320 images of the reference, unshuffled. It normalised in single precision and went on in
    double.
    """

    def __init__(self, recipe):
        whole = build.open_data(recipe).train
        first = ArraySet("first 320", whole.images.numpy()[:320], whole.labels[:320], View())
        self.loader = eval_loader(first, batch_size=32, mean=recipe.data.mean, std=recipe.data.std)

    def __len__(self):
        return len(self.loader)

    def epoch(self, epoch=0, start_batch=0):
        for images, labels, indices in self.loader.epoch(epoch, start_batch):
            yield images.double(), labels, indices


@pytest.fixture
def session(tmp_path):
    """The reference run's session: its weights, its 320 images in file order."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = RunDir(tmp_path)
    recipe = load_recipe(run.recipe)
    save.clean_up(run)
    recorder = Recorder(run, CPU, recipe)
    recorder.open()
    session = prepare(run, recipe, CPU, Options(), Signals(), recorder)
    session.train = InFileOrder(recipe)
    session.samples = 320
    with np.load(TRACE) as arrays:
        stored = {key[5:]: arrays[key] for key in arrays.files if key.startswith("init/")}
    wide = {
        key: value.astype(float) if value.dtype.kind == "f" else value
        for key, value in stored.items()
    }
    weights = {key: torch.from_numpy(value) for key, value in wide.items()}
    session.module.load_state_dict(from_released(weights, session.module))
    yield session
    recorder.close("done")


def test_sixty_steps_to_1e_8(session):
    save.begin(session)
    train(session)
    rows = [event for event in read_events(session.run) if event["kind"] == EventKind.STEP]
    with np.load(TRACE) as arrays:
        reference, columns = arrays["rows"], [str(name) for name in arrays["columns"]]
    keys = ["progress", "lr", "cross_entropy", "gate_l1", "inactive"]
    found = np.array([[row[key] for key in keys] for row in rows])
    assert columns[2:4] == ["cross_entropy", "lasso"]
    assert found.shape == reference.shape == (60, 5)
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-8)
