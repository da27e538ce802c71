"""The layer by the Triton kernels as two operators of PyTorch, forward and backward, for
torch.compile, torch.export and other tracers: they see shapes, and no launch.

A program that is exported with them needs `import dgc.layers.algorithms.triton_operator` before it
is loaded. Without a tracer autograd calls TritonLayer, which spares the host an operator's detour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dgc.kernels.gpu import passes
from dgc.kernels.gpu.passes import TritonSelected, TritonWindow
from dgc.layers.algorithms.triton import TritonBack, TritonComputed, affine_of, check, computed
from dgc.layers.norm import Normaliser, Rule, chain_of


def run(
    rules: tuple[Rule, ...], numbers: Sequence[int], inactive: Tensor, x: Tensor, weight: Tensor,
    *rest: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As dgc.layers.algorithms.triton.run."""
    check(x, *rest)
    eps, batch = [rule.eps for rule in rules], [rule.batch for rule in rules]
    norms = list(rest[3:])
    found = dynamic_layer(x, weight, *rest[:3], inactive, norms, eps, batch, list(numbers))
    return found[0], found[1], found[2]


def _chain(
    norms: Sequence[Tensor], eps: Sequence[float], batch: Sequence[bool]
) -> tuple[Normaliser, ...]:
    rules = tuple(Rule(float(e), bool(b)) for e, b in zip(eps, batch, strict=True))
    return chain_of(norms, rules)


@torch.library.custom_op("dgc::dynamic_layer", mutates_args=())
def dynamic_layer(
    x: Tensor, weight: Tensor, fc1: Tensor, fc2: Tensor, fc2_bias: Tensor, inactive: Tensor,
    norms: Sequence[Tensor], eps: Sequence[float], batch: Sequence[bool], window: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As TritonComputed; `norms` are four tensors each, `window` the numbers of a TritonWindow."""
    affines = tuple(affine_of(link) for link in _chain(norms, eps, batch))
    x, weight = passes.planes(x), weight.contiguous()
    return computed(TritonWindow(*window), affines, x, weight, fc1, fc2, fc2_bias, inactive)


@dynamic_layer.register_fake
def _(
    x: Tensor, weight: Tensor, fc1: Tensor, fc2: Tensor, fc2_bias: Tensor, inactive: Tensor,
    norms: Sequence[Tensor], eps: Sequence[float], batch: Sequence[bool], window: Sequence[int],
) -> TritonComputed:  # fmt: skip
    (b, c, h, w), (heads, *_) = x.shape, window
    sizes = [TritonWindow(*window).output(size) for size in (h, w)]
    y = x.new_empty(b, len(weight), *sizes)
    numbers = x.new_empty(b, heads, c, dtype=torch.float32)
    return TritonComputed(
        y,
        numbers.new_empty(()),
        numbers,
        numbers.new_empty(b, c),
        torch.empty_like(numbers),
        numbers.new_empty(b, heads, dtype=torch.int32),
        torch.empty_like(numbers, dtype=torch.int32),
    )


@torch.library.custom_op("dgc::dynamic_layer_backward", mutates_args=())
def dynamic_layer_backward(
    grad_y: Tensor, grad_l1: Tensor, x: Tensor, weight: Tensor, fc1: Tensor, fc2: Tensor,
    left: Tensor, pooled: Tensor, gates: Tensor, counts: Tensor, channels: Tensor,
    norms: Sequence[Tensor], eps: Sequence[float], batch: Sequence[bool], window: Sequence[int],
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, weight, fc1, fc2, fc2_bias, and of each norm's weight and bias."""
    chain = _chain(norms, eps, batch)
    back = TritonBack(
        chain, tuple(affine_of(link) for link in chain), TritonWindow(*window), passes.planes(x),
        weight.contiguous(), fc1, fc2, pooled, gates, TritonSelected(left, counts, channels),
    )  # fmt: skip
    grads, of_norms = back.grads(grad_y, grad_l1)
    # rows of one small tensor: what an operator returns may not share memory
    return [*grads, *(grad.clone() for grad in of_norms)]


@dynamic_layer_backward.register_fake
def _(
    grad_y: Tensor, grad_l1: Tensor, x: Tensor, weight: Tensor, fc1: Tensor, fc2: Tensor,
    left: Tensor, pooled: Tensor, gates: Tensor, counts: Tensor, channels: Tensor,
    norms: Sequence[Tensor], eps: Sequence[float], batch: Sequence[bool], window: Sequence[int],
) -> list[Tensor]:  # fmt: skip
    heads, _, c = fc1.shape
    like = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (weight, fc1, fc2)]
    grads = [x.new_empty(x.shape), *like, fc1.new_empty(heads, c)]
    return [*grads, *(fc1.new_empty(c) for _ in range(len(norms) // 2))]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, fc1, fc2, _, _, norms, *numbers = inputs
    ctx.numbers, ctx.norms = numbers, len(norms)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(x, weight, fc1, fc2, *output[2:], *norms)


def _back(ctx: Any, grad_y: Tensor | None, grad_l1: Tensor | None, *_: Any) -> tuple[Any, ...]:
    x, weight, fc1, fc2, *rest = ctx.saved_tensors
    if grad_y is None:
        sizes = [TritonWindow(*ctx.numbers[2]).output(size) for size in x.shape[2:]]
        grad_y = x.new_zeros(len(x), len(weight), *sizes)
    grad_l1 = rest[0].new_zeros(()) if grad_l1 is None else grad_l1
    grads = dynamic_layer_backward(
        grad_y, grad_l1, x, weight, fc1, fc2, *rest[:5], rest[5:], *ctx.numbers
    )
    pairs = zip(grads[5::2], grads[6::2], strict=True)
    norms = [g for pair in pairs for g in (*pair, None, None)]
    return *grads[:5], None, norms, None, None, None


dynamic_layer.register_autograd(_back, setup_context=_keep)
