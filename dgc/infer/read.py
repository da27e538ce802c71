"""The front of the engine: a module and the shape of its image become a graph of nodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten

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


@dataclass
class Reading:
    """The outputs of a network, and how they are put together."""

    outputs: list[Node]
    shapes: list[tuple[int, ...]]  # without the batch
    form: TreeSpec
    single: bool  # one tensor, as it is

    @property
    def blockers(self) -> list[Blocker]:
        """Everything that stands in the way of a plan; operations of one kind together."""
        found = [n for n in ordered(self.outputs) if n.kind == "unknown"]
        counts = Counter(n.what for n in found)
        places = {n.what: n.path for n in reversed(found)}
        return [Blocker(what, places[what], count) for what, count in counts.most_common()]


def read(model: nn.Module, in_shape: tuple[int, int, int]) -> Reading:
    """What `model`, in evaluation mode, does with images of (channels, height, width).

    Raises UnknownError where it cannot be followed: it asks for the content of a tensor, or gives
    something that was not computed from the image.
    """
    trace = Trace(_translate)
    image = torch.empty(BATCH, *in_shape, device="meta")
    x = trace.tensor(image, Node("input", [], in_shape))
    try:
        with torch.no_grad(), followed(model, trace, _leaf):
            result = model(x)
    except Exception as e:
        place = f" in {trace.path[-1]}" if trace.path[-1] else ""
        raise UnknownError(f"{type(model).__name__} cannot be followed{place}: {e}") from e
    leaves, form = tree_flatten(result)
    outputs, shapes = [], []
    for leaf in leaves:
        if not isinstance(leaf, Traced):
            raise UnknownError("an output that was not computed from the image")
        outputs.append(trace.flat(leaf))
        shapes.append(tuple(leaf.shape[1:]))
        if leaf.spread:
            raise UnknownError("an output that is one number over a whole image")
    return Reading(outputs, shapes, form, isinstance(result, Tensor))


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
