"""The whole layer as one autograd function that keeps its raw input, a few numbers a channel, and
nothing else. (On a GPU: dgc.layers.gpu_layer.)

Backward makes BN-ReLU's output again, walks the convolution's way back, then gates, ReLU and
BatchNorm by hand. Legend: B samples, G heads, C channels, S hidden width of the gates, K selected
channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgc.layers import gating, selection
from dgc.layers.algorithms import ALGORITHMS
from dgc.layers.dispatch import Dispatch
from dgc.layers.gating import gates_backward
from dgc.layers.geometry import Geometry, Selected, select, unselect
from dgc.layers.norm import (
    Normaliser,
    Rule,
    activations,
    chain_backward,
    chain_of,
    relu_backward_,
)
from dgc.layers.own_autocast import without_autocast

PIECE = 1 << 20  # numbers of one copy of a piece's activations


class Setting(NamedTuple):
    """What is fixed for one call:
    how the BatchNorms in front work, in order, and the numbers of the layer.
    """

    rules: tuple[Rule, ...]
    n_inactive: int | Tensor  # in (1,), so that the host does not know it
    dispatch: Dispatch
    geometry: Geometry


class FusedLayer(torch.autograd.Function):
    """(x, weight, fc1, fc2, fc2_bias, then weight, bias,
    mean and variance of every norm) -> (y, gate L1, gates).

    The gates are those that were left on, without a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        setting: Setting,
        x: Tensor,
        weight: Tensor,
        fc1: Tensor,
        fc2: Tensor,
        fc2_bias: Tensor,
        *norms: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        # an activation is made, used and dropped: backward makes it again from x
        a_BCHW = activations(chain_of(norms, setting.rules), x)[-1]
        # gates never in less than the parameters' precision: near the threshold one bit decides
        pooled_BC = a_BCHW.mean((2, 3), dtype=fc1.dtype)
        gates_BGC = gating.gates(pooled_BC, fc1, fc2, fc2_bias)
        selected_BGC = selection.switch_off(gates_BGC, setting.n_inactive)
        selected = select(selected_BGC, setting.dispatch.channels)
        selected = Selected(selected.gate.to(weight.dtype), selected.index)
        y_BOHW = ALGORITHMS[setting.dispatch.algorithm].forward(
            a_BCHW, weight, selected, setting.geometry
        )
        ctx.setting = setting
        # x is the one tensor of an activation's size; the rest are numbers a channel, or weights
        ctx.save_for_backward(
            x, weight, fc1, fc2, pooled_BC, gates_BGC, selected.gate, selected.index, *norms
        )
        # the choice has no derivative; the gates that were chosen have theirs through y
        ctx.mark_non_differentiable(selected_BGC)
        return y_BOHW, gating.gate_l1(gates_BGC), selected_BGC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_l1: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        # under autocast backward would compute in another precision than forward, which saw none
        with without_autocast(grad_y):
            return _backward(ctx.setting, ctx.saved_tensors, grad_y, grad_l1)


def _backward(
    setting: Setting, saved: tuple[Tensor, ...], grad_y: Tensor, grad_l1: Tensor
) -> tuple[Tensor | None, ...]:
    x, weight, fc1, fc2, pooled, gates, selected_gate, index, *norms = saved
    chain = chain_of(norms, setting.rules)
    # all but the last BatchNorm at once: its input is what `pieces` are cut from
    inputs = activations(chain[:-1], x)
    last = chain[-1] if chain else None
    layer = _Layer(setting, weight, fc1, fc2, last, grad_l1 / gates[:, 0].numel())

    def piece(rows: slice) -> tuple[Tensor, ...]:
        selected = Selected(selected_gate[rows], None if index is None else index[rows])
        return layer.backward(grad_y[rows], inputs[-1][rows], pooled[rows], gates[rows], selected)

    # a few samples at a time, so that the copy that is made again stays in the cache
    # the first piece says which shapes and dtypes its sums have; the others are added to them
    first, *others = pieces(inputs[-1])
    found, *totals = piece(first)
    # `found` is cut into pieces along the batch, `totals` are sums over it
    if others:  # one piece alone is not copied
        grad_a = torch.empty_like(inputs[-1])
        grad_a[first] = found
        for rows in others:
            grad_a[rows], *grads = piece(rows)
            totals = [total.add_(grad) for total, grad in zip(totals, grads, strict=True)]
        found = grad_a
    grad_x, grad_norms = chain_backward(chain, found, inputs)
    return None, grad_x, *totals, *grad_norms


def pieces(x_BCHW: Tensor) -> list[slice]:
    """Groups of samples whose activations fit into a CPU's cache."""
    samples = x_BCHW.shape[0]
    # at least one sample, however large it is
    step = max(1, PIECE * samples // max(1, x_BCHW.numel()))
    return [slice(first, first + step) for first in range(0, samples, step)]


class _Layer(NamedTuple):
    """What the backward of every piece of a batch shares;
    `grad_l1` is the gradient of each gate from the L1 term.
    """

    setting: Setting
    weight: Tensor
    fc1: Tensor
    fc2: Tensor
    norm: Normaliser | None
    grad_l1: Tensor

    def backward(
        self, grad_y: Tensor, raw: Tensor, pooled: Tensor, gates: Tensor, selected: Selected
    ) -> tuple[Tensor, ...]:
        """Gradients for the output of the last norm (before its ReLU),
        weight, fc1, fc2 and fc2_bias.
        """
        a_BCHW = raw if self.norm is None else self.norm.activate(raw)
        grads = ALGORITHMS[self.setting.dispatch.algorithm].backward(
            grad_y, a_BCHW, self.weight, selected, self.setting.geometry
        )
        grad_gates = self._gates(grads.gate, gates, selected)
        grad_pooled, *grad_fcs = gates_backward(grad_gates, pooled, self.fc1, self.fc2)
        # the pooled input is a mean, so each pixel gets an equal share of its gradient
        pixels = a_BCHW.shape[2] * a_BCHW.shape[3]
        grad_a = grads.x.add_((grad_pooled / pixels).to(grads.x.dtype)[..., None, None])
        return (
            grad_a if self.norm is None else relu_backward_(grad_a, a_BCHW),
            grads.weight,
            *grad_fcs,
        )

    def _gates(self, grad_BGK: Tensor, gates_BGC: Tensor, selected: Selected) -> Tensor:
        """Of the gates before their ReLU:
        selected ones hear from the convolution, all positive ones from the L1 term.
        """
        channels, dtype = gates_BGC.shape[-1], gates_BGC.dtype
        # channels that only fill up a vector were given gate 0 and must not hear anything
        heard_BGK = grad_BGK.to(dtype) * (selected.gate > 0)
        return (unselect(heard_BGK, selected.index, channels) + self.grad_l1) * (gates_BGC > 0)
