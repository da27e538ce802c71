"""One of several processes: gradients of its share of a batch, and its share of an evaluation.

RANK=r WORLD_SIZE=n ... python -m tests.distributed.worker OUT.pt      (the first rank writes)
"""

import sys

import torch
from torch import nn

from dgc import create_model, set_progress
from dgc.data import eval_loader, open_images
from dgc.recipe.load import parse_recipe
from dgc.train.distillation import Teacher
from dgc.train.ema import WeightAverage
from dgc.train.evaluation import evaluate
from dgc.train.mixing import Mix
from dgc.train.ranks import Ranks, join
from dgc.train.session import make_updater
from tests.faults.training import RECIPE

BATCH = 12
SHARES = {1: [12], 2: [7, 5]}  # uneven on purpose
# (samples, loaded at once): uneven, fewer than ranks
EVALUATIONS = ((200, 16), (150, 50), (70, 1), (64, 64), (5, 16))


def frozen_model() -> nn.Module:
    """A small DGC network in training mode, its BatchNorms in evaluation mode with statistics of
    their own.
    """
    torch.manual_seed(0)
    model = create_model(
        "dydensenet",
        stages=[1, 1, 1],
        growth=[4, 4, 4],
        num_classes=10,
        gate_factor=0.25,
        stem="cifar",
    )
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.double()


def gradients(ranks: Ranks, *, accumulate: int = 1) -> dict[str, torch.Tensor]:
    """Gradients after one real step on this rank's share of one batch of 12."""
    recipe = parse_recipe(RECIPE, "recipe")
    model = frozen_model()
    updater = make_updater(recipe, ranks, model)
    updater.accumulate = accumulate
    images = torch.randn(
        BATCH, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    labels = torch.arange(BATCH) % 10
    parts = [
        part[ranks.rank]
        for part in (images.split(SHARES[ranks.world]), labels.split(SHARES[ranks.world]))
    ]
    updater.step(*parts, lr=0.0, p=0.5, global_batch=BATCH)
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


# options that came after the paper: what they change in the recipe's `optim`, and how images are mixed
OPTIONS: dict[str, tuple[str, Mix | None]] = {
    "sgd": ("gate_weight_decay: 0.0, norm_weight_decay: 0.0, bias_weight_decay: 0.01", None),
    "adamw": ("name: adamw, weight_decay: 0.05", None),
    "rmsprop": ("name: rmsprop, momentum: 0.9", None),
    "clip_grad_norm": ("clip_grad_norm: 0.01", None),
    "label_smoothing": ("label_smoothing: 0.3", None),
    "mixup": ("weight_decay: 0.0", Mix(0.7)),
    "cutmix": ("weight_decay: 0.0", Mix(0.6, (0.4, 0.7))),
    "teacher": ("weight_decay: 0.0", None),
    "ema": ("weight_decay: 0.0", None),
}
PAIRED = {1: [12], 2: [8, 4]}  # mixed two by two


def trained(ranks: Ranks, option: str) -> torch.Tensor:
    """The weights, or their average, after three updates with an option."""
    change, mix = OPTIONS[option]
    recipe = parse_recipe(RECIPE.replace("optim: {lr: 0.05}", f"optim: {{lr: 0.05, {change}}}"), "")
    model = frozen_model()
    teacher = Teacher(frozen_model().eval(), 3.0, 0.7, {}) if option == "teacher" else None
    if teacher is not None:
        torch.nn.init.normal_(teacher.module.classifier.weight, 0.0, 1.0)
        ranks.spread_(teacher.module.state_dict().values())
    updater = make_updater(recipe, ranks, model, teacher=teacher)
    average = WeightAverage(model, 0.9)
    dice = torch.Generator().manual_seed(2)
    for step in range(1, 4):
        images = torch.randn(BATCH, 3, 32, 32, dtype=torch.float64, generator=dice)
        labels = torch.randperm(BATCH, generator=dice) % 10
        mine = [x.split(PAIRED[ranks.world])[ranks.rank] for x in (images, labels)]
        updater.step(*mine, lr=0.01, p=0.5, global_batch=BATCH, mix=mix)
        average.update(step)
    values = average.tensors() if option == "ema" else model.state_dict()
    return torch.cat([v.flatten().double() for k, v in values.items() if "num_batches" not in k])


def figures(ranks: Ranks, samples: int, batch_size: int) -> dict[str, float]:
    model = frozen_model().float()
    set_progress(model, 0.9)
    images = open_images(name="fashion_mnist", limit_val=samples)
    loader = eval_loader(
        images.val,
        batch_size=batch_size,
        mean=(0.286,) * 3,
        std=(0.353,) * 3,
        rank=ranks.rank,
        world_size=ranks.world,
    )
    batches = ((batch.images, batch.labels) for batch in loader.epoch())
    return evaluate(model, batches, samples, ranks).asdict()


def results(ranks: Ranks) -> dict[str, object]:
    torch.set_num_threads(1)
    return {
        "gradients": gradients(ranks),
        "trained": {option: trained(ranks, option) for option in OPTIONS},
        "figures": [figures(ranks, *sizes) for sizes in EVALUATIONS],
    }


def main() -> None:
    with join("cpu") as ranks:
        found = results(ranks)
        if ranks.first:
            torch.save(found, sys.argv[1])


if __name__ == "__main__":
    main()
