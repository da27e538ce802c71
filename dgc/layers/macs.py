"""MACs and parameters of a network, layer by layer, from the modules themselves.

Counting rule (the authors' counter, released code `utils`): 1 MAC = 1; convolutions and linear
layers with bias, ReLU = elements, average and max pooling = outputs x kernel area, global pooling =
inputs, the dynamic convolution times gate_factor plus its pooling and gates; BatchNorm, selection,
the product x * g and copies are not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from dgc.layers.backend import set_backend
from dgc.layers.cost import Cost, conv_macs


@dataclass(frozen=True)
class Row:
    """One layer: `shape` is its output (C, H, W), or what there is of it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    dense: float
    promised: float
    executed: float


@dataclass(frozen=True)
class Complexity:
    """Rows in the order of the forward, and their sums
    in whole MACs (truncated, as the authors' counter does).
    """

    rows: list[Row]
    params: int
    dense: int
    promised: int
    executed: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def count(
    model: nn.Module, image_size: int | tuple[int, int], in_channels: int = 3, device: str = "meta"
) -> Complexity:
    """Complexity of `model` for one image (in_channels, H, W);
    the model itself is neither run nor changed.

    Works on any network that runs on the meta device. `executed` holds for the present `n_inactive`
    of each layer: call `dgc.set_progress(model, 1.0)` first to see the end of the schedule. A
    module that is used twice is two rows, its parameters in the first. Modules of unknown kind have
    0 MACs. `device="cpu"` runs a copy on one black image: for a small network that is quicker than
    meta kernels, which import torch's compiler.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    # a copy: hooks, mode and device of the caller's network stay as they are
    shadow = copy.deepcopy(model).to(device).eval()
    set_backend(shadow, "auto")  # one that was asked for by name may not be had on this device
    rows: list[Row] = []
    handles = [
        module.register_forward_hook(_Recorder(name, rows)) for name, module in _counted(shadow)
    ]
    with torch.no_grad():
        shadow(torch.zeros(1, in_channels, *size, device=device, dtype=_dtype(shadow)))
    for handle in handles:
        handle.remove()
    sums = (
        int(round(sum(getattr(row, column) for row in rows), 3))
        for column in ("dense", "promised", "executed")
    )
    return Complexity(rows, sum(p.numel() for p in model.parameters()), *sums)


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)


def _counted(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules that make a row: those that count themselves, and torch's leaves outside of these."""
    # a module that counts itself speaks for its children, unless it says that they count too
    own = hasattr(model, "cost")
    if own or not any(True for _ in model.children()):
        yield name, model
    if not own or getattr(model, "counts_children", False):
        for child_name, child in model.named_children():
            yield from _counted(child, f"{name}.{child_name}" if name else child_name)


class _Recorder:
    """A forward hook that appends one row a call."""

    def __init__(self, name: str, rows: list[Row]) -> None:
        self.name, self.rows = name, rows

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        x, y = (_shape(value) for value in (inputs[0] if inputs else None, output))
        # used twice: computed twice, but its parameters are there once
        seen = any(row.name == self.name for row in self.rows)
        params = (
            0
            if seen or getattr(module, "counts_children", False)
            else sum(p.numel() for p in module.parameters())
        )
        self.rows.append(Row(self.name, type(module).__name__, y[1:], params, *_cost(module, x, y)))


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _cost(module: nn.Module, x: tuple[int, ...], y: tuple[int, ...]) -> Cost:
    if isinstance(module, nn.Module) and hasattr(module, "cost"):
        counter = cast("Callable[..., Cost]", module.cost)
        return counter(x[1:], y[1:])
    return Cost.same(_static_macs(module, x[1:], y[1:]))


def _static_macs(module: nn.Module, x: tuple[int, ...], y: tuple[int, ...]) -> int:
    if isinstance(module, nn.Conv2d):
        return conv_macs(module.weight.shape, y) + (0 if module.bias is None else _elements(y))
    if isinstance(module, nn.Linear):
        rows = _elements(y) // module.out_features
        return rows * (module.weight.numel() + (0 if module.bias is None else module.bias.numel()))
    if isinstance(module, nn.ReLU):
        return _elements(y)
    if isinstance(module, nn.AvgPool2d | nn.MaxPool2d):
        return _elements(y) * _area(module.kernel_size)
    return _elements(x) if isinstance(module, nn.AdaptiveAvgPool2d) else 0


def _elements(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _area(kernel_size: int | tuple[int, ...]) -> int:
    return kernel_size**2 if isinstance(kernel_size, int) else kernel_size[0] * kernel_size[1]
