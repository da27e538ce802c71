"""A network is read by running it once on tensors without content: what each operation gives is
noted as a node of the graph, and its shape is computed by PyTorch itself. So whatever a network
asks of its shapes has an answer, and functions are read as modules are.

No operation raises here: what no kernel computes becomes a node of kind `unknown`, so that
everything that stands in the way of a plan is known at the end.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from dgc.infer.graph import Node, UnknownError

BATCH = 3  # images of the run without content: a number that no other dimension's role explains

_without = torch._C.DisableTorchFunctionSubclass


class Traced(Tensor):
    """A tensor without content that knows which node it is.

    `index` says which of the node's channels each place of the leading dimensions holds: of an
    image (batch, *index.shape, height, width), of a vector or an image of one pixel (batch,
    *index.shape). `spread`: each of a vector's numbers over a whole image.
    """

    node: Node
    index: Any  # whole numbers, in numpy's arrays
    spread: bool
    trace: Any  # the Trace

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        with _without():
            leaves, spec = tree_flatten((args, kwargs))
            trace = next(v.trace for v in leaves if isinstance(v, Traced))
            return trace.call(func, args, kwargs, leaves, spec)


class Trace:
    """What is noted while a network runs."""

    def __init__(self, translate: Callable[[Trace, Any, Any, Any, Any], Any]) -> None:
        self.translate = translate
        self.path: list[str] = [""]
        self._alive: list[Any] = []  # storages: so that no address is given out twice
        self._views: dict[int, list[weakref.ref[Traced]]] = {}
        self._flat: dict[tuple[Node, bytes], Node] = {}

    def tensor(
        self, meta: Tensor, node: Node, index: NDArray[np.int64] | None = None, spread: bool = False
    ) -> Traced:
        """A traced tensor of the shape of `meta` (and in its memory, so that views are known)."""
        made = meta.as_subclass(Traced)
        if made is meta:
            # The same tensor twice would be one object with two nodes.
            made = meta.view_as(meta).as_subclass(Traced)
        made.node, made.trace, made.spread = node, self, spread
        lead = self.lead(meta, node)
        made.index = np.arange(node.channels).reshape(lead) if index is None else index
        storage = meta.untyped_storage()
        self._alive.append(storage)
        self._views.setdefault(storage._cdata, []).append(weakref.ref(made))
        return made

    @staticmethod
    def lead(meta: Tensor, node: Node) -> tuple[int, ...]:
        shape = tuple(meta.shape)
        return shape[1:] if node.one_pixel else shape[1:-2]

    def node(self, kind: str, inputs: list[Node], shape: tuple[int, int, int], **more: Any) -> Node:
        return Node(kind, inputs, shape, self.path[-1], **more)

    def flat(self, t: Traced, lead: tuple[int, ...] | None = None) -> Node:
        """A node that holds the tensor's channels in their order (broadcast to `lead`)."""
        index = t.index if lead is None else np.broadcast_to(t.index, lead)
        order = index.reshape(-1)
        n = t.node.channels
        if len(order) == n and (order == np.arange(n)).all():
            return t.node
        key = (t.node, order.tobytes())
        if key not in self._flat:
            run = (order == order[0] + np.arange(len(order))).all()
            shape = (len(order), *t.node.shape[1:])
            self._flat[key] = self.node(
                "slice" if run else "gather", [t.node], shape, index=tuple(map(int, order))
            )
        return self._flat[key]

    def call(self, func: Any, args: Any, kwargs: Any, leaves: list[Any], spec: Any) -> Any:
        """Run the function without content and note what it gives."""
        given = list({id(v): v for v in leaves if isinstance(v, Traced)}.values())
        # Changes in place are seen by PyTorch's own counter, whatever a function is called.
        before = [v._version for v in given]
        inputs, named = tree_unflatten([_without_content(v) for v in leaves], spec)
        # Run on tensors without content: the shape of the
        # result is PyTorch's own, and no number is computed.
        result = func(*inputs, **named)
        made, form = tree_flatten(result)
        # size(), dim() and their like: an answer about shapes, which is known.
        if not any(isinstance(v, Tensor) for v in made):
            return result
        changed = [v for v, old in zip(given, before, strict=True) if v._version != old]
        known = {id(v) for v in given}
        if not changed and all(id(v) in known for v in made):
            return result  # the same tensor again: dropout at evaluation, contiguous()
        name = _name(func)
        new = self._translated(name, args, kwargs, result, given)
        if changed:
            return self._in_place(name, changed, new[0])
        pairs = zip(made, new, strict=True)
        return tree_unflatten([self.tensor(m, *n) for m, n in pairs], form)

    def _translated(
        self, name: str, args: Any, kwargs: Any, result: Any, given: list[Traced]
    ) -> list[tuple[Any, ...]]:
        """(node, index, spread) of each tensor in the result."""
        try:
            found = self.translate(self, name, args, kwargs, result)
        except UnknownError as e:
            found = None
            name = str(e)
        if found is not None:
            return found if isinstance(found, list) else [found]
        return [
            (self.unknown(name, given, m), None, False)
            for m in tree_flatten(result)[0]
            if isinstance(m, Tensor)
        ]

    def unknown(self, what: str, given: list[Traced], result: Tensor) -> Node:
        """A node that no kernel computes; its channels are only counted."""
        shape = tuple(result.shape)
        image = len(shape) >= 4 and shape[-2:] != (1, 1)
        size = (int(shape[-2]), int(shape[-1])) if image else (1, 1)
        lead = shape[1:-2] if image else shape[1:]
        inputs = list(dict.fromkeys(v.node for v in given))
        return self.node("unknown", inputs, (int(np.prod(lead, dtype=int)), *size), what=what)

    def _in_place(self, name: str, changed: list[Traced], new: tuple[Any, ...]) -> Traced:
        target, node = changed[0], new[0]
        # A change of one tensor is one of all that share its memory: nodes cannot say that.
        views = self._views[target.untyped_storage()._cdata]
        shared = any(v() is not None and v() is not target for v in views)
        if len(changed) > 1 or shared or target.node.kind == "input":
            what = f"{name} in place, on a tensor that is seen elsewhere as well"
            node = self.node("unknown", [node], node.shape, what=what)
        target.node, target.spread = node, False
        index = new[1]
        lead = self.lead(target, node)
        target.index = np.arange(node.channels).reshape(lead) if index is None else index
        return target


def _without_content(v: Any) -> Any:
    if isinstance(v, Tensor) and not isinstance(v, Traced) and v.device.type != "meta":
        if v.dim() == 0:
            return v.detach()
        return torch.empty_strided(v.shape, v.stride(), dtype=v.dtype, device="meta")
    return v


def _name(func: Any) -> str:
    """conv2d, relu, add ... : without the underscores of methods, operators and changes in
    place.
    """
    name = str(getattr(func, "__name__", func)).strip("_")
    swapped = {"radd": "add", "rmul": "mul", "iadd": "add", "imul": "mul", "isub": "sub"}
    return swapped.get(name, {"truediv": "div", "itruediv": "div", "idiv": "div"}.get(name, name))


@contextmanager
def followed(model: nn.Module, trace: Trace, leaf: Callable[..., Any]) -> Iterator[None]:
    """While a network runs, the trace knows in which module; `leaf` gives the result of those that
    are one operation (or None for all others)."""
    wrapped: list[nn.Module] = []
    for path, module in model.named_modules():
        # Somebody has put a function of their own there; it is followed as part of its parent.
        if "forward" in module.__dict__:
            continue
        module.__dict__["forward"] = _following(path, module, trace, leaf)
        wrapped.append(module)
    try:
        yield
    finally:
        for module in wrapped:
            del module.__dict__["forward"]


def _following(
    path: str, module: nn.Module, trace: Trace, leaf: Callable[..., Any]
) -> Callable[..., Any]:
    forward = type(module).forward

    def run(*args: Any, **kwargs: Any) -> Any:
        trace.path.append(path)
        try:
            found = leaf(module, trace, args, kwargs)
            return forward(module, *args, **kwargs) if found is None else found
        finally:
            trace.path.pop()

    return run
