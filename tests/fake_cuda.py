"""A whole training step on fake CUDA tensors, on a machine without a GPU.

Fake tensors have a shape, a type and a device, and no values: an operation that mixes devices, or
that needs a value on the host (`float(x)`, a boolean index, `.item()`), raises. What is counted on
the way is what a GPU would launch (an operation that is no view is one launch, as PyTorch runs it
without a compiler) and the bytes that these read and write.

PyTorch's backward engine asks the CUDA driver for its streams, so the graph is walked in Python.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda", 0)
# what moves no data: other strides of the same memory, or memory that nobody has written yet
_NAMES = """
view transpose t permute expand slice select unsqueeze squeeze _unsafe_view detach as_strided unbind split alias
split_with_sizes _reshape_alias lift_fresh empty new_empty empty_like empty_strided new_empty_strided unfold
"""
_FREE = {f"aten::{name}" for name in _NAMES.split()} | {"prim::device"}
# update kernels without a rule for fake tensors: checked here instead
_UPDATES = ("aten::_fused_sgd_", "aten::_fused_adamw_")


@dataclass
class Counted(TorchDispatchMode):
    """`launches` by operation, `bytes`, and `strayed`: operations off the device, with their place."""

    launches: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    strayed: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = f(*args, **(kwargs or {}))
        written = {
            a.name for a in f._schema.arguments if a.is_out
        }  # named again by what is returned
        read = {key: value for key, value in (kwargs or {}).items() if key not in written}
        tensors = [t for t in tree_leaves((args, read, out)) if isinstance(t, Tensor)]
        name = f._schema.name
        devices = {t.device.type for t in tensors}
        # a number that waits on the host (a count of steps, a gradient's seed) may be made there
        if devices - {"cuda"}:
            self.strayed[name, _place()] += 1
        if "cuda" in devices and name not in _FREE:
            on_device = [t for t in tensors if t.device.type == "cuda"]
            self.note(name, sum(t.numel() * t.element_size() for t in on_device))
        return out

    def note(self, name: str, size: int) -> None:
        """A launch, and the bytes that it reads and writes."""
        self.launches[name] += 1
        self.bytes += size


def _place() -> str:
    frames = [frame for frame in traceback.extract_stack() if "/dgc/" in frame.filename]
    return f"{frames[-1].filename.rpartition('/dgc/')[2]}:{frames[-1].name}" if frames else "?"


class _Updates(TorchDispatchMode):
    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if f._schema.name not in _UPDATES:
            return f(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        assert {t.device for t in tensors} == {DEVICE}
        parameters, gradients = args[:2]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert (parameter.shape, parameter.dtype) == (gradient.shape, gradient.dtype)
        return None


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, tensors are fake, and torch.cuda says that there is a GPU with bfloat16."""
    patches = [
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch.object(Tensor, "backward", _backward),
        mock.patch.object(FunctionCtx, "set_materialize_grads", _set_materialize_grads),
    ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(FakeTensorMode(allow_fallback_kernels=False))
        stack.enter_context(_Updates())
        yield


def _set_materialize_grads(ctx: Any, value: bool) -> None:
    ctx.materialize_grads = value
    ctx.wants_zeros = value  # the attribute above cannot be read


# --- backward, node by node -----------------------------------------------------------------------


def _backward(loss: Tensor) -> None:
    """What `loss.backward()` does: each node of the graph once, after all that lead to it."""
    assert loss.dim() == 0
    root = loss.grad_fn
    assert root is not None
    missing = _edges_into(root)
    waiting: dict[Any, dict[int, Tensor]] = {root: {0: torch.ones((), device=loss.device)}}
    ready = [root]
    while ready:
        node = ready.pop()
        received = waiting.pop(node, {})
        if hasattr(node, "variable"):
            _accumulate(node.variable, received)
            continue
        for (follower, number), gradient in zip(
            node.next_functions, _called(node, received), strict=True
        ):
            if follower is None:
                continue
            if gradient is not None:
                _add(waiting.setdefault(follower, {}), follower, number, gradient)
            missing[follower] -= 1
            if not missing[follower]:
                ready.append(follower)


def _edges_into(root: Any) -> Counter[Any]:
    """How many edges lead into each node."""
    counted: Counter[Any] = Counter()
    seen, open_nodes = {root}, [root]
    while open_nodes:
        for follower, _ in open_nodes.pop().next_functions:
            if follower is not None:
                counted[follower] += 1
                if follower not in seen:
                    seen.add(follower)
                    open_nodes.append(follower)
    return counted


def _accumulate(variable: Tensor, received: dict[int, Tensor]) -> None:
    if 0 in received:
        gradient = received[0]
        variable.grad = gradient if variable.grad is None else variable.grad + gradient


@torch.no_grad()
def _called(node: Any, received: dict[int, Tensor]) -> tuple[Any, ...]:
    described = node._input_metadata
    given: list[Any] = [received.get(number) for number in range(len(described))]
    if not hasattr(node, "_forward_cls"):
        found = node(*given)
        return found if isinstance(found, tuple) else (found,)
    # a Function of Python is promised zeros where nothing arrived; what stays on the host is a
    # placeholder without a gradient
    for number, about in enumerate(described):
        wanted = getattr(node, "wants_zeros", True)
        if given[number] is None and about.device == DEVICE and wanted:
            given[number] = torch.zeros(tuple(about.shape), dtype=about.dtype, device=about.device)
    found = node.apply(*given)
    found = found if isinstance(found, tuple) else (found,)
    return found[len(found) - len(node.next_functions) :]


def _add(slot: dict[int, Tensor], node: Any, number: int, gradient: Tensor) -> None:
    wanted = node.variable if hasattr(node, "variable") else node._input_metadata[number]
    if tuple(gradient.shape) != tuple(wanted.shape):  # as the engine does for what was broadcast
        gradient = gradient.sum_to_size(tuple(wanted.shape))
    assert gradient.device == wanted.device, (node.name(), gradient.device)
    gradient = gradient.to(wanted.dtype)
    slot[number] = slot[number] + gradient if number in slot else gradient


# --- a step ----------------------------------------------------------------------------------------


def counted_step(
    make: Callable[[], Any], images: tuple[int, ...], p: float, mix: Any = None,
    counted: Counted | None = None,
) -> Any:  # fmt: skip
    """Launches and bytes of the second step of the updater that `make` gives, inside `fake_cuda`."""
    updater = make()
    batch = torch.empty(images, device=DEVICE)
    labels = torch.empty(images[0], dtype=torch.int64, device=DEVICE)
    updater.step(batch, labels, 0.1, p, images[0], mix)
    counted = counted or Counted()
    with counted:
        row = updater.step(batch, labels, 0.1, p, images[0], mix)
    assert row.device == DEVICE
    for name, parameter in updater.module.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad.device, parameter.grad.dtype) == (DEVICE, parameter.dtype), name
    return counted


def on_device(make: Callable[[], nn.Module], *, channels_last: bool = False) -> nn.Module:
    """A network of fake parameters (moving fake ones to another device is not possible)."""
    with torch.device(DEVICE):
        net = make().train()
    if channels_last:
        for parameter in net.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net
