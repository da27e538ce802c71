"""How near a network's plan in 8 bits is to float32, as a whole and layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dgc.infer.compile import Precision, compile_for_inference
from dgc.layers import DynamicGroupConv2d


@dataclass(frozen=True)
class LayerLoss:
    """One convolution, computed in 8 bits from what it reads in float32."""

    name: str
    error: float  # relative: the norm of the difference over that of the result
    outputs: int

    def __str__(self) -> str:
        return f"{self.name}: {100 * self.error:.2f} %"


@dataclass(frozen=True)
class PrecisionReport:
    """`layers` from the one that loses most on. `changed`: images whose best class is another."""

    precision: str
    images: int
    changed: int
    logits_error: float
    layers: tuple[LayerLoss, ...]
    unlike: tuple[str, ...]  # layers that are called in a way that cannot be repeated alone

    def __str__(self) -> str:
        head = (
            f"{self.precision} against float32, {self.images} images: {self.changed} answered"
            f" otherwise, logits off by {100 * self.logits_error:.2f} %"
        )
        return "\n".join([head, *(f"  {layer}" for layer in self.layers[:10])])


@torch.inference_mode()
def compare_precisions(
    model: nn.Module, images_BCHW: Tensor, precision: Precision = "int8"
) -> PrecisionReport:
    """Run `model` in float32 and its plan in `precision` over the same images, and each convolution
    alone over what it reads in float32.
    """
    model = copy.deepcopy(model).eval()
    with _seen(model) as calls:
        wanted = model(images_BCHW)
    found = compile_for_inference(model, precision=precision)(images_BCHW)
    losses, unlike = [], []
    for name, layer in _convolutions(model):
        if name not in calls:
            continue
        loss = _loss(name, layer, calls[name], precision)
        if loss is None:
            unlike.append(name)
        else:
            losses.append(loss)
    return PrecisionReport(
        precision,
        len(images_BCHW),
        int((found.argmax(1) != wanted.argmax(1)).sum()),
        relative_error(found, wanted),
        tuple(sorted(losses, key=lambda loss: -loss.error)),
        tuple(unlike),
    )


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference over the norm of what is wanted."""
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))


@dataclass(frozen=True)
class _Call:
    x: Tensor
    named: dict[str, Any]
    y: Tensor


def _convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, m in model.named_modules():
        if isinstance(m, DynamicGroupConv2d) or type(m) is nn.Conv2d:
            yield name, m


@contextmanager
def _seen(model: nn.Module) -> Iterator[dict[str, _Call]]:
    """What each convolution is called with, and gives, at its last call."""
    calls: dict[str, _Call] = {}

    def watch(name: str) -> Any:
        def keep(_: nn.Module, given: tuple[Tensor], named: dict[str, Any], y: Tensor) -> None:
            calls[name] = _Call(given[0], named, y)

        return keep

    hooks = [
        layer.register_forward_hook(watch(name), with_kwargs=True)
        for name, layer in _convolutions(model)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _loss(name: str, layer: nn.Module, call: _Call, precision: Precision) -> LayerLoss | None:
    x, norm = call.x, call.named.get("input_norm")
    if norm is not None:
        x = torch.relu(norm(x))
    if set(call.named) - {"input_norm"}:
        return None
    alone = compile_for_inference(nn.Sequential(layer), precision=precision)
    return LayerLoss(name, relative_error(alone(x), call.y), int(call.y.shape[1]))
