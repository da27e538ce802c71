"""Milliseconds of a network and of its layers, each as a plan of its own for one image."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dgc.choice.one_layer import inactive
from dgc.errors import ArgumentError
from dgc.infer import compile_for_inference
from dgc.kernels.cpu import available, describe
from dgc.layers import DynamicGroupConv2d

SECONDS = 0.02  # of one look at one contender
ROUNDS = 7


def require_kernels(images: Tensor) -> None:
    """Raises ArgumentError where milliseconds cannot be those of a plan."""
    if images.device.type != "cpu" or images.dtype != torch.float32:
        raise ArgumentError("milliseconds are those of a plan: give float32 images on the CPU")
    if not available():
        why = describe().get("why_not") or "they are not available"
        raise ArgumentError(f"milliseconds are measured with the native kernels: {why}")


def network(model: nn.Module, image_1CHW: Tensor) -> float:
    """Milliseconds of the whole network for one image."""
    return _interleaved([compile_for_inference(model)], [image_1CHW])[0]


def layer(
    one: DynamicGroupConv2d, inputs: Sequence[Tensor], shares: Sequence[float]
) -> list[float]:
    """Milliseconds of a layer alone at each share, over all that it is called with in one forward;
    the shares take turns, so that what slows the machine down slows all of them.
    """
    contenders = []
    for share in shares:
        # each share is a plan of its own: how many channels are on is fixed when it is made
        twin = copy.deepcopy(one)
        twin.set_inactive(inactive(twin, share))
        contenders.append(compile_for_inference(nn.Sequential(twin)))
    found = [0.0] * len(contenders)
    for x_1CHW in inputs:
        times = _interleaved(contenders, [x_1CHW] * len(contenders))
        found = [a + b for a, b in zip(found, times, strict=True)]
    return found


@torch.inference_mode()
def _interleaved(models: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[float]:
    counts = []
    for model, x in zip(models, inputs, strict=True):
        model(x)  # makes the plan
        # so many calls that one look takes SECONDS, whatever the layer costs
        counts.append(max(1, int(SECONDS / max(_timed(model, x, 1), 1e-6))))
    best = [float("inf")] * len(models)
    for _ in range(ROUNDS):
        for at, (model, x) in enumerate(zip(models, inputs, strict=True)):
            # the least of the rounds: whatever disturbs a measurement makes it longer
            best[at] = min(best[at], _timed(model, x, counts[at]))
    return [1000 * seconds for seconds in best]


def _timed(model: nn.Module, x: Tensor, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        model(x)
    return (time.perf_counter() - began) / count
