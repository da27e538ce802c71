"""Everything one process needs to train, put together once, and handed to the loop's functions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dgc import schedule
from dgc.recipe.load import Recipe
from dgc.run.paths import RunDir
from dgc.train import build
from dgc.train.costs import CostMeter
from dgc.train.distillation import Teacher
from dgc.train.ema import WeightAverage
from dgc.train.memory_format import FORMATS, Format
from dgc.train.mixed_precision import Amp
from dgc.train.mixing import Mix, Mixing
from dgc.train.optimizers import make_optimizer
from dgc.train.ranks import Ranks
from dgc.train.recorder import Recorder
from dgc.train.requests import Control
from dgc.train.state import Position, Progress
from dgc.train.step import Updater
from dgc.train.step_buffer import StepBuffer
from dgc.train.step_graph import GraphUpdater


class Batches(Protocol):
    """What the loop asks of a loader;
    `epoch` yields this rank's (images, labels, indices) from a batch on.
    """

    def __len__(self) -> int: ...

    def epoch(
        self, epoch: int = 0, start_batch: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]: ...


@dataclass(frozen=True)
class Options:
    """What the command line adds to the run directory."""

    resume: bool = False
    allow_change: bool = False
    rescue_dir: Path | None = None
    data_dir: Path | None = None


@dataclass
class Session:
    """`samples`: size of the training set. `eval_samples`: size of the evaluation's. `structure`:
    what the network is made of; `made`: how it came to that, for model.json.
    """

    run: RunDir
    recipe: Recipe
    ranks: Ranks
    options: Options
    updater: Updater
    meter: CostMeter
    train: Batches
    val: Batches
    samples: int
    eval_samples: int
    data_facts: dict[str, Any]
    notes: list[tuple[str, str]]
    control: Control
    recorder: Recorder
    steps: StepBuffer
    progress: Progress = field(default_factory=Progress)
    resume_fingerprint: dict[str, Any] = field(default_factory=dict)
    layout: Format = "contiguous"
    ema: WeightAverage | None = None
    structure: dict[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    # where the newest checkpoint stands; saving twice at one place does nothing
    saved_at: Position | None = None
    # the clocks of the steps since the last PERF event, and how long they waited for data
    steps_began: float = field(default_factory=time.monotonic)
    cpu_began: float = field(default_factory=time.process_time)
    waited: float = 0.0

    @property
    def module(self) -> nn.Module:
        return self.updater.module

    @property
    def position(self) -> Position:
        return self.progress.position

    @property
    def batches(self) -> int:
        """Batches of an epoch."""
        return len(self.train)

    @property
    def last_step(self) -> int:
        # max_steps may end a run in the middle of an epoch
        whole = self.recipe.train.epochs * self.batches
        return min(whole, self.recipe.train.max_steps or whole)

    @property
    def epoch_trained(self) -> bool:
        """Whether all steps of the present epoch (or of the run) are done."""
        return self.position.batch == self.batches or self.position.step >= self.last_step

    @property
    def finished(self) -> bool:
        """Whether the last epoch is closed too."""
        return self.position.step >= self.last_step and self.position.batch == 0

    def schedule(self) -> tuple[float, float]:
        """Progress and learning rate of the step to come."""
        # pruning follows the progress of the whole run, the learning rate its own schedule
        epochs, position = self.recipe.train.epochs, self.position
        p = schedule.progress(position.epoch, position.batch, epochs, self.batches)
        return p, self._learning_rate(p)

    def _learning_rate(self, p: float) -> float:
        optim = self.recipe.optim
        # in steps, so that a warm-up of half an epoch is possible
        warmup = round(optim.warmup_epochs * self.batches)
        # counted in steps of the schedule: max_steps cuts it off and does not squeeze it
        step = self.position.epoch * self.batches + self.position.batch
        if step < warmup:
            return schedule.warmed_up(step, warmup, optim.warmup_lr, optim.lr)
        if optim.schedule == "multistep":
            milestones = optim.milestones
            return schedule.multistep(self.position.epoch, optim.lr, milestones, optim.gamma)
        # the cosine begins where the warm-up ends, and still ends at 0 with the last step
        if warmup:
            p = (step - warmup) / (self.recipe.train.epochs * self.batches - warmup)
        return schedule.cosine(p, optim.lr)

    def mix(self, epoch: int, batch: int) -> Mix | None:
        """How a batch is mixed. A short one at the end of an epoch is not: it may be odd."""
        train = self.recipe.train
        if self.global_batch(batch) < train.batch_size:
            return None
        return Mixing(self.recipe.seed, train.mixup, train.cutmix).of(epoch, batch)

    def global_batch(self, batch: int) -> int:
        """Samples of batch number `batch` of an epoch over all ranks: the last one may be short."""
        size = self.recipe.train.batch_size
        return min(size, self.samples - batch * size)


def make_updater(
    recipe: Recipe,
    ranks: Ranks,
    module: nn.Module,
    layout: Format = "contiguous",
    amp: Amp = "off",
    teacher: Teacher | None = None,
) -> Updater:
    """The update rule of the recipe on `module`, which is already on its device."""
    forward = build.compile_model(module) if recipe.train.compile is True else module
    kind = GraphUpdater if recipe.train.compile == "reduce-overhead" else Updater
    # one flag for guard and optimizer, on the device: see GuardedOptimizer
    tripped = torch.zeros(1, device=ranks.device)
    return kind(
        module=module,
        forward=ranks.wrap(forward),
        optimizer=make_optimizer(recipe.optim, module, tripped),
        scaler=torch.amp.GradScaler(ranks.device.type, enabled=amp == "fp16"),
        ranks=ranks,
        amp=amp,
        gate_weight=recipe.optim.gate_l1,
        label_smoothing=recipe.optim.label_smoothing,
        clip_grad_norm=recipe.optim.clip_grad_norm,
        accumulate=recipe.train.accumulate,
        memory_format=FORMATS[layout],
        teacher=teacher,
    )
