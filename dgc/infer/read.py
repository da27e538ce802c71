"""The front of the engine: a module and the shape of its image become a graph of nodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dgc.infer import read_arithmetic, read_convs, read_images, read_moves
from dgc.infer.graph import Node, UnknownError, ordered
from dgc.infer.trace import BATCH, Trace, Traced, followed
from dgc.layers import DynamicGroupConv2d

TRANSLATORS: dict[str, Any] = {
    **read_moves.TABLE,
    **read_arithmetic.TABLE,
    **read_convs.TABLE,
    **read_images.TABLE,
}


@dataclass(frozen=True)
class Blocker:
    """Something that no kernel computes: the operation, the first module in which it was met, and
    how often it occurs."""

    operation: str
    module: str
    count: int

    def __str__(self) -> str:
        place = f" in {self.module}" if self.module else ""
        return f"{self.operation}{place}" + (f" and {self.count - 1} more" * (self.count > 1))


def blockers(output: Node) -> list[Blocker]:
    """Everything that stands in the way of a plan; operations of one kind together."""
    found = [n for n in ordered(output) if n.kind == "unknown"]
    counts = Counter(n.what for n in found)
    places = {n.what: n.path for n in reversed(found)}
    return [Blocker(what, places[what], count) for what, count in counts.most_common()]


def read(model: nn.Module, in_shape: tuple[int, int, int]) -> Node:
    """What `model`, in evaluation mode, does with images of (channels, height, width): its output.

    Raises UnknownError where it cannot be followed: it asks for the content of a tensor, or gives
    something else than one tensor that was computed from the image.
    """
    trace = Trace(_translate)
    try:
        # an inference tensor does not count its changes in place
        with torch.inference_mode(False), torch.no_grad(), followed(model, trace, _leaf):
            image = torch.empty(BATCH, *in_shape, device="meta")
            result = model(trace.tensor(image, Node("input", [], in_shape)))
    except Exception as e:
        place = f" in {trace.path[-1]}" if trace.path[-1] else ""
        said = str(e).splitlines()[0] if str(e) else ""
        raise UnknownError(
            f"{type(model).__name__} cannot be followed{place}: {type(e).__name__}: {said}"
        ) from e
    if not isinstance(result, Traced):
        raise UnknownError(
            f"an answer that is no tensor computed from the image: {type(result).__name__}"
        )
    if result.spread or result.shape[0] != BATCH:
        raise UnknownError("an answer in a form that no plan gives")
    output = trace.flat(result)
    if output.kind == "input":
        raise UnknownError("an answer that is the image itself")
    output.answer = tuple(result.shape[1:])
    return output


def _translate(trace: Trace, name: str, args: Any, kwargs: Any, result: Any) -> Any:
    translator = TRANSLATORS.get(name)
    return None if translator is None else translator(trace, name, args, kwargs, result)


def _leaf(module: nn.Module, trace: Trace, args: Any, kwargs: Any) -> Any:
    """A dynamic layer is one operation."""
    if not isinstance(module, DynamicGroupConv2d):
        return None
    kwargs = {k: v for k, v in kwargs.items() if v is not None}
    if len(args) != 1 or not isinstance(args[0], Traced) or set(kwargs) - {"input_norm"}:
        return None
    return read_convs.dynamic(trace, module, args[0], kwargs.get("input_norm"))
