"""Runs of the network on an example: what its convolutions see, and whether it still computes the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dgc.conversion.rules import Place
from dgc.errors import ArgumentError, DgcError
from dgc.layers import DynamicGroupConv2d

# (C, H, W) that goes in and comes out, once for each call
Uses = Sequence[tuple[tuple[int, int, int], tuple[int, int, int]]]
DOUBLE_BAR = 1e-9
BAR, ROUGH_BAR = 1e-4, 1e-2  # a GPU may multiply in TF32


def watch(
    model: nn.Module, example: Any, places: Sequence[Place]
) -> tuple[list[Tensor], dict[str, Uses]]:
    """The network's outputs on the example, and what each convolution was called with."""
    seen: dict[str, list[tuple[Any, Any]]] = {place.name: [] for place in places}

    def hook(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name].append((tuple(inputs[0].shape[-3:]), tuple(output.shape[-3:])))

        return note

    handles = [place.conv.register_forward_hook(hook(place.name)) for place in places]
    try:
        outputs = run(model, example)
    except DgcError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArgumentError(
            f"{type(model).__name__} does not take the example ({type(error).__name__}: {first}):"
            " give a batch as the network takes it"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return outputs, dict(seen)


@torch.no_grad()
def run(model: nn.Module, example: Any) -> list[Tensor]:
    """All tensors that the network answers in evaluation mode, copied; modes are put back."""
    with evaluating(model):
        given = _copied(example)
        if isinstance(given, Mapping):
            answer = model(**given)
        else:
            answer = model(*given) if isinstance(given, tuple | list) else model(given)
    return [tensor.clone() for tensor in tensors(answer)]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _copied(value: Any) -> Any:
    """A network may change its input in place."""
    return _each(value, lambda tensor: tensor.detach().clone())


def doubled(value: Any) -> Any:
    """An example in double precision."""
    return _each(value, lambda t: t.detach().double() if t.is_floating_point() else t)


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each(item, change) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_each(item, change) for item in value)
    return value


def tensors(answer: Any) -> Iterator[Tensor]:
    """The floating-point tensors in whatever a network returns, in order."""
    if isinstance(answer, Tensor):
        if answer.is_floating_point():
            yield answer
    elif isinstance(answer, Mapping):
        for value in answer.values():
            yield from tensors(value)
    elif isinstance(answer, tuple | list):
        for value in answer:
            yield from tensors(value)


def compare(
    model: nn.Module,
    example: Any,
    first: Sequence[Tensor],
    replaced: Sequence[tuple[Place, DynamicGroupConv2d]],
    in_double: Callable[[], float],
) -> tuple[float | None, str]:
    """(how far the converted network is off the original, what to say about it).

    Each layer is held against its convolution on what it is given. A deep network may let rounding
    grow: where each layer is right and the whole is off, `in_double` converts and compares it in
    double precision, which decides. Raises DgcError, which names the first layer that computes
    something else.
    """
    problems: list[str] = []
    handles = [layer.register_forward_hook(_against(place, problems)) for place, layer in replaced]
    try:
        second = run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    if problems:
        raise DgcError(f"the converted network computes something else: {problems[0]}")
    if not all(bool(tensor.isfinite().all()) for tensor in first):
        return (
            None,
            "The original's output on the example is not finite: layers alone were compared.",
        )
    difference = off(second, first)
    if difference <= _bar(first):
        return difference, ""
    if off(run(model, example), second) > _bar(first):
        return None, "The network answers differently each time: its layers alone were compared."
    exact = in_double()
    if exact <= DOUBLE_BAR:
        return difference, (
            f"Rounding grows in this network: in double precision it is off by {exact:.1e}."
        )
    raise DgcError(
        f"the converted network's output is off by {difference:.1e} of its largest number, though"
        " each layer computes what its convolution did: the network reads its convolutions in"
        " another way than calling them"
    )


def _against(place: Place, problems: list[str]) -> Any:
    def look(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        wanted = place.conv(inputs[0])
        if bool(wanted.isfinite().all()) and off([output], [wanted]) > _bar([wanted]):
            problems.append(f"{place.name} is off by {off([output], [wanted]):.1e}")

    return look


def off(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest difference as a share of the largest number of its tensor;
    infinite for other shapes.
    """
    if [t.shape for t in found] != [t.shape for t in wanted]:
        return float("inf")
    shares = [
        ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item()
        for a, b in zip(found, wanted, strict=True)
        if b.numel()
    ]
    return max((share if share == share else float("inf") for share in shares), default=0.0)


def _bar(results: Sequence[Tensor]) -> float:
    exact = all(
        t.device.type == "cpu" and t.dtype in (torch.float32, torch.float64) for t in results
    )
    return BAR if exact else ROUGH_BAR
