"""One update: forward, backward, guard, optimizer. Nothing here reads the device.

Shape suffixes: B batch, C channels or classes, H, W.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dgc.layers import gate_l1, iter_dgc, set_progress
from dgc.run import metrics
from dgc.train.distillation import Teacher
from dgc.train.mixing import Mix, Target, mixed
from dgc.train.optimizers import GuardedOptimizer
from dgc.train.ranks import Ranks, without_sync

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class LossParts(NamedTuple):
    """This rank's part of a global batch, once each was weighed by its share: what the loss is made
    of, and how many answers are wrong. Scalars on the device.
    """

    cross_entropy: Tensor
    gate_l1: Tensor
    wrong: Tensor


class StepTensors(NamedTuple):
    """What a rank has at the end of a step, for the columns of dgc.run.metrics: scalars on the
    device, to be added up over the ranks.
    """

    cross_entropy: Tensor
    gate_l1: Tensor
    wrong: Tensor
    bad: Tensor
    grad_norm: Tensor
    # after the update; its gradients are still there, clipped, and in fp16 still scaled
    module: nn.Module
    first: bool

    def once(self, value: Tensor) -> Tensor:
        """A figure that is the same on all ranks, so that their sum counts it once."""
        return value.double() * (1.0 if self.first else 0.0)


def column_names() -> tuple[str, ...]:
    """The columns of a row, in order."""
    return tuple(metric.name for metric in metrics.STEP_METRICS if metric.column)


@dataclass
class Updater:
    """The recipe's update rule on one model.

    `module` holds the parameters, `forward` is the same network as it is called (compiled, wrapped
    for ranks).
    """

    module: nn.Module
    forward: nn.Module
    optimizer: GuardedOptimizer
    scaler: torch.amp.GradScaler
    ranks: Ranks
    amp: str
    gate_weight: float
    accumulate: int
    memory_format: torch.memory_format = torch.contiguous_format
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        self._layers = [layer for _, layer in iter_dgc(self.module)]

    @property
    def inactive(self) -> int:
        """Sum of the numbers of inactive channels over all DGC layers."""
        return sum(layer.n_inactive for layer in self._layers)

    def step(
        self,
        images_BCHW: Tensor,
        labels_B: Tensor,
        lr: float,
        p: float,
        global_batch: int,
        mix: Mix | None = None,
    ) -> Tensor:
        """Train on this rank's share of a global batch, its images mixed by `mix`. Returns one row
        of `column_names` on the device, to be summed over ranks.
        """
        # how many channels are off is set from outside, before the forward of each step
        set_progress(self.module, p)
        self._set_lr(lr)
        images_BCHW, target = mixed(images_BCHW, labels_B, mix)
        images_BCHW = images_BCHW.to(memory_format=self.memory_format)
        return self._run(images_BCHW, target, global_batch)

    def _set_lr(self, lr: float) -> None:
        self.optimizer.lr = lr

    def _run(self, images_BCHW: Tensor, target: Target, global_batch: int) -> Tensor:
        """How an update runs: as it comes, here."""
        return self._update(images_BCHW, target, global_batch)

    def _update(self, images_BCHW: Tensor, target: Target, global_batch: int) -> Tensor:
        """What runs on the device from the batch to the row."""
        # None, not zero: a parameter that the loss does not reach is then found by the optimizer
        self.module.zero_grad(set_to_none=True)
        parts = self._backward(images_BCHW, target, global_batch)
        # after backward, before the update, which a tripped guard keeps from being made
        norm = self._guard(parts)
        self.scaler.step(cast("torch.optim.Optimizer", self.optimizer))
        self.scaler.update()
        tensors = StepTensors(
            **parts._asdict(),
            bad=self.optimizer.tripped[0],
            grad_norm=norm,
            module=self.module,
            first=self.ranks.first,
        )
        columns = [metric.column for metric in metrics.STEP_METRICS if metric.column]
        # read by nobody here: the row stays on the device until the buffer is full
        return torch.stack([column(tensors).double() for column in columns])

    def probe(
        self, images_BCHW: Tensor, labels_B: Tensor, p: float, mix: Mix | None = None
    ) -> tuple[float, float]:
        """Loss and gradient norm of a batch on this rank alone,
        read at once; for the report of a run that diverged.
        """
        set_progress(self.module, p)
        self.module.zero_grad(set_to_none=True)
        total = torch.zeros((), device=images_BCHW.device)
        images_BCHW, target = mixed(images_BCHW, labels_B, mix)
        # in the pieces that it was trained in: as a whole it may not fit into memory
        for x_BCHW, y in _chunks(images_BCHW, target, self.accumulate):
            with self._precision(x_BCHW.device.type):
                logits_BC = self.module(x_BCHW)
            l1 = gate_l1(self.module).to(logits_BC.device)
            loss = self._answered(x_BCHW, y, logits_BC) + self.gate_weight * l1
            share = len(x_BCHW) / len(labels_B)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach() * share
        gradients = [
            parameter.grad for parameter in self.module.parameters() if parameter.grad is not None
        ]
        return float(total), float(
            torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        )

    def _backward(self, images_BCHW: Tensor, target: Target, global_batch: int) -> LossParts:
        """Gradients of the global batch's mean loss, and what this rank has of it."""
        totals: list[LossParts] = []
        chunks = list(_chunks(images_BCHW, target, self.accumulate))
        for number, (x_BCHW, y) in enumerate(chunks, 1):
            # as a share of all ranks' images: parts may be of different
            # sizes, and their means must add up to the whole mean
            share = len(x_BCHW) / global_batch
            # gradients travel once a step, with the last part
            with without_sync(self.forward) if number < len(chunks) else nullcontext():
                part = self._losses(x_BCHW, y)
                # DDP averages over ranks, so a rank's part of the global mean counts `world` times
                loss = (part.cross_entropy + self.gate_weight * part.gate_l1) * (
                    share * self.ranks.world
                )
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            l1 = part.gate_l1.detach() * share
            # counted already, not a mean
            totals.append(LossParts(part.cross_entropy.detach() * share, l1, part.wrong))
        return totals[0] if len(totals) == 1 else _added(totals)

    def _losses(self, x_BCHW: Tensor, y: Target) -> LossParts:
        with self._precision(x_BCHW.device.type):
            logits_BC = self.forward(x_BCHW)
        # the loss in float32: softmax of many classes overflows what fp16 can hold
        if logits_BC.dtype in AMP_TYPES.values():
            logits_BC = logits_BC.float()
        wrong = (logits_BC.detach().argmax(1) != y.labels).sum()
        loss = self._answered(x_BCHW, y, logits_BC)
        return LossParts(loss, gate_l1(self.module).to(logits_BC.device), wrong)

    def _answered(self, x_BCHW: Tensor, y: Target, logits_BC: Tensor) -> Tensor:
        """The loss of what the network answers, without that of its gates."""
        loss = y.cross_entropy(logits_BC, self.label_smoothing)
        if self.teacher is None:
            return loss
        with self._precision(x_BCHW.device.type):
            return self.teacher.taught(loss, logits_BC, x_BCHW)

    def _precision(self, device_type: str) -> AbstractContextManager[Any]:
        if self.amp == "off":
            return nullcontext()
        return torch.autocast(device_type, dtype=AMP_TYPES[self.amp])

    def _guard(self, parts: LossParts) -> Tensor:
        """Trip on a loss or a gradient that is not finite, on all ranks together.
        Returns the gradient norm.
        """
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        # with fp16 an overflowing gradient is GradScaler's daily work: it skips that step and
        # lowers the scale
        watched = parts.cross_entropy + parts.gate_l1 + (0 * norm if self.amp != "fp16" else 0)
        bad = (~torch.isfinite(watched)).to(self.optimizer.tripped.dtype)
        # never back to zero: all later steps change nothing, until the host looks
        self.optimizer.tripped.copy_(torch.maximum(self.optimizer.tripped, bad))
        self.ranks.max_(self.optimizer.tripped)
        # the loss was scaled, and its gradients with it
        scale: Tensor | None = getattr(self.scaler, "_scale", None)
        norm = norm if scale is None else norm / scale
        if self.clip_grad_norm is not None:  # as torch.nn.utils.clip_grad_norm_
            # one factor for all of them, taken on the device: whether it is below 1 is not asked
            torch._foreach_mul_(gradients, (self.clip_grad_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm


def _chunks(images_BCHW: Tensor, target: Target, count: int) -> Iterator[tuple[Tensor, Target]]:
    if count == 1:
        yield images_BCHW, target
    else:
        yield from zip(images_BCHW.tensor_split(count), target.split(count), strict=True)


def _added(totals: list[LossParts]) -> LossParts:
    return LossParts(*(torch.stack(column).sum() for column in zip(*totals, strict=True)))
