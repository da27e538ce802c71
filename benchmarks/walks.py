"""Which files an image, a metric and a checkpoint pass: `python -m benchmarks.walks` trains and
evaluates a small network, shows a curve of it in the dashboard, downloads a made checkpoint from a
host on this machine, and names every file in which a function ran meanwhile, with its functions.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
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

ROOT = Path(dgc.__file__).parent.parent
PACKAGES = tuple(f"{ROOT / package}{os.sep}" for package in ("dgc", "dgcctl"))
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
    """Within the block each call of a function of `dgc` and `dgcctl` in this thread is noted, by
    file.
    """

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        # the bodies of modules and classes run when something is imported, and are no function
        if event != "call" or not code.co_flags & inspect.CO_OPTIMIZED:
            return
        if code.co_filename.startswith(PACKAGES) and code.co_name[0] != "<":
            name = str(Path(code.co_filename).relative_to(ROOT))
            walk.setdefault(name, {})[code.co_qualname] = None

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextmanager
def replaced(*changes: tuple[Any, str, Callable[..., Any]]) -> Iterator[None]:
    """Within the block the named functions are others."""
    before = [getattr(place, name) for place, name, _ in changes]
    for place, name, changed in changes:
        setattr(place, name, changed)
    try:
        yield
    finally:
        for (place, name, _), old in zip(changes, before, strict=True):
            setattr(place, name, old)


def noting(walk: Walk, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; what runs in it is noted."""

    @functools.wraps(function)
    def noted_function(*args: Any, **options: Any) -> Any:
        with noted(walk):
            return function(*args, **options)

    return noted_function


def in_training(run: RunDir) -> tuple[Walk, Walk]:
    """What passes between the data set and the changed weights, and from a row to the log."""
    image: Walk = {}
    metric: Walk = {}
    epoch = Loader.epoch

    def noted_epoch(*args: Any, **options: Any) -> Iterator[Any]:
        batches = epoch(*args, **options)
        while True:
            with noted(image):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    run.path.mkdir(parents=True)
    run.recipe.write_text(RECIPE)
    with replaced(
        (Updater, "step", noting(image, Updater.step)),
        (Loader, "epoch", noted_epoch),
        (loop, "flush", noting(metric, step_rows.flush)),
    ):
        run_training(run, Options(), Signals())
    return image, metric


def in_dashboard(run: RunDir) -> Walk:
    """From the log to the chart: what runs where news are read, taken, made a curve and drawn."""
    from dgcctl.tui.state.curves import Curves
    from dgcctl.tui.state.feed import FeedBatch, Follower
    from dgcctl.tui.state.store import Store
    from dgcctl.tui.widgets.chart import Chart
    from tests.tui import frames

    walk: Walk = {}
    take, noted_take = Store.take, noting(walk, Store.take)

    def take_rows(store: Store, news: Any) -> None:
        # news of the run's state go the same way, and are no metric
        (noted_take if isinstance(news, FeedBatch) else take)(store, news)

    async def shown() -> None:
        async with frames.opened(run.path.parent, frames.LARGE, open=(run.id,)) as (_, pilot):
            await frames.settled(pilot)

    with replaced(
        (Follower, "poll", noting(walk, Follower.poll)),
        (Store, "take", take_rows),
        (Curves, "chart_spec", noting(walk, Curves.chart_spec)),
        (Chart, "show", noting(walk, Chart.show)),
    ):
        asyncio.run(shown())
    return walk


def of_a_checkpoint(folder: Path) -> Walk:
    """From the link to the logits, of a file as the authors wrote theirs; what the process with
    limits runs is not in here.
    """
    from dgc.hub import load_pretrained
    from dgc.hub.cache import Cache
    from dgc.hub.fetch import FetchOptions
    from dgc.hub.hosts import Bases
    from tests import released
    from tests.faults import hosts as play

    name = "cifar10_dydensenet86_h4"
    content = released.released_content(released.random_network(name, 32))
    file = released.write(folder / "theirs.tar", content, zipped=False)
    table = released.registry_for(folder / "registry.json", name, file.stat().st_size)
    os.environ["DGCCTL_REGISTRY"] = str(table)
    walk: Walk = {}
    with play.running() as hosts:
        hosts.drive, hosts.onedrive = [play.file(file.read_bytes())], [play.status(404)]
        options = FetchOptions(bases=Bases(hosts.url, hosts.url), offline=False)
        with noted(walk):
            found = load_pretrained(name, Cache(folder / "cache"), options)
    found.model(released.image_batch(name))
    return walk


def in_inference() -> tuple[Walk, Walk]:
    """From the data set through the plan to the logits: with the first batch, for which the plan is
    made, and with the second.
    """
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
    first: Walk = {}
    second: Walk = {}
    batches = loader.epoch()
    with torch.inference_mode():
        with noted(first):
            plan = dgc.compile_for_inference(model)
            plan(next(batches).images)
        with noted(second):
            plan(next(batches).images)
    return first, second


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "runs" / "20261126-120000-tiny-abc001")
        image, metric = in_training(run)
        first, second = in_inference()
        walks = {
            "an image in training": image,
            "an image in inference, and the making of its plan": first,
            "an image in inference, by a plan that is made": second,
            "a metric, from its row to the log": metric,
            "a metric, from the log to the chart": in_dashboard(run),
            "a checkpoint, from the link to the weights": of_a_checkpoint(Path(folder)),
        }
    for title, walk in walks.items():
        print(f"{title}: {len(walk)} files, {sum(map(len, walk.values()))} functions")
        for name in sorted(walk):
            print(f"  {name}: {', '.join(walk[name])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
