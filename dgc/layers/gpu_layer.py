"""The whole layer as one autograd function for GPUs, in PyTorch's own operations: what
dgc.layers.fused is on a CPU, in few launches and few passes over memory.

Kept for backward is what the dense network keeps: the raw input, and the output of BatchNorm and
ReLU, which to make again took four passes. Legend: B samples, G heads, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dgc.layers import gating, selection
from dgc.layers.algorithms import ALGORITHMS
from dgc.layers.batch_link import BatchLink, first_pass
from dgc.layers.dispatch import Algorithm
from dgc.layers.geometry import Geometry, Selected
from dgc.layers.norm import Rule, relu_backward_
from dgc.layers.own_autocast import without_autocast

# tensors that backward is handed: of the layer, and of each BatchNorm with the output of its ReLU
OF_LAYER, OF_LINK = 8, 4


class Dynamic(Protocol):
    """What is read of a dynamic layer."""

    weight: nn.Parameter
    fc1: nn.Parameter
    fc2: nn.Parameter
    fc2_bias: nn.Parameter
    inactive_channels: Tensor
    n_from_buffer: bool
    n_inactive: int
    stride: int
    padding: int
    dilation: int
    heads: int


class GpuSetting(NamedTuple):
    """What is fixed for one call; `norms` are the modules in front, whose statistics move on."""

    norms: tuple[nn.BatchNorm2d, ...]
    n_inactive: int | Tensor
    algorithm: Algorithm
    geometry: Geometry


def run(
    layer: Dynamic, algorithm: Algorithm, norms: Sequence[nn.Module], x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The layer of x: its output, all gates (G, B, C), and those that were left on (B, G, C)."""
    geometry = Geometry(layer.stride, layer.padding, layer.dilation, layer.heads)
    n = layer.inactive_channels if layer.n_from_buffer else layer.n_inactive
    plain = tuple(cast("nn.BatchNorm2d", norm) for norm in norms)
    setting = GpuSetting(plain, n, algorithm, geometry)
    # weights of a sample's own are rounded when they are made, and their gradient is summed in full
    weight = layer.weight if algorithm == "own_weights" else layer.weight.to(x.dtype)
    affine = [t for norm in plain for t in (norm.weight, norm.bias)]
    found: tuple[Tensor, Tensor, Tensor] = GpuLayer.apply(
        setting, x, weight, layer.fc1, layer.fc2, layer.fc2_bias, *affine
    )
    return found


class GpuLayer(torch.autograd.Function):
    """(x, weight, fc1, fc2, fc2_bias, then weight and bias of every norm) -> as `run`."""

    @staticmethod
    def forward(
        ctx: Any, setting: GpuSetting, x: Tensor, weight: Tensor, fc1: Tensor, fc2: Tensor,
        fc2_bias: Tensor, *_: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        a_BCHW, rules, kept = x, [], []
        for norm in setting.norms:
            a_BCHW, link = first_pass(norm, a_BCHW)
            rules.append(link.rule)
            kept += [*link[1:], a_BCHW]
        # gates never in less than the parameters' precision
        pooled_BC = a_BCHW.mean((2, 3), dtype=fc1.dtype)
        hidden_BN, gates_GBC = gating.gates_by_head(pooled_BC, fc1, fc2, fc2_bias)
        on_GBC = selection.switch_off(gates_GBC, setting.n_inactive)
        selected = Selected(on_GBC.transpose(0, 1), None)
        y_BOHW = ALGORITHMS[setting.algorithm].forward(a_BCHW, weight, selected, setting.geometry)
        ctx.setting, ctx.rules, ctx.shape = setting, rules, y_BOHW.shape
        of_layer = (x, weight, fc1, fc2, pooled_BC, hidden_BN, gates_GBC, on_GBC)
        ctx.save_for_backward(*of_layer, *kept)
        on_BGC = selected.gate.detach()
        ctx.mark_non_differentiable(on_BGC)
        # zeros for what nobody asked the gradient of would be launches
        ctx.set_materialize_grads(False)
        return y_BOHW, gates_GBC, on_BGC

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_y: Tensor | None, grad_gates: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        if grad_y is None:
            grad_y = saved[0].new_zeros(ctx.shape)
        with without_autocast(grad_y):
            return _backward(ctx.setting, ctx.rules, saved, grad_y, grad_gates)


def _backward(
    setting: GpuSetting, rules: Sequence[Rule], saved: Sequence[Tensor], grad_y: Tensor,
    grad_gates: Tensor | None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    x, weight, fc1, fc2, pooled_BC, hidden_BN, gates_GBC, on_GBC = saved[:OF_LAYER]
    of_links = [saved[OF_LAYER + OF_LINK * i :][:OF_LINK] for i in range(len(rules))]
    # the raw input, and what followed each BatchNorm and its ReLU
    values = [x, *(of_link[-1] for of_link in of_links)]
    grads = ALGORITHMS[setting.algorithm].backward(
        grad_y, values[-1], weight, Selected(on_GBC.transpose(0, 1), None), setting.geometry
    )
    heard_GBC = gating.heard(grads.gate.transpose(0, 1), grad_gates, gates_GBC, on_GBC)
    grad_pooled, *grad_fcs = gating.gates_by_head_backward(
        heard_GBC, pooled_BC, fc1, fc2, hidden_BN
    )
    # the pooled input is a mean, so each pixel gets an equal share of its gradient
    share = 1 / (x.shape[2] * x.shape[3])
    grad = grads.x.add_(grad_pooled[..., None, None], alpha=share)
    affine: list[Tensor] = []
    for i in reversed(range(len(rules))):
        link = BatchLink(rules[i], *of_links[i][:-1])
        grad, *its = link.backward(relu_backward_(grad, values[i + 1]), values[i])
        affine[:0] = its
    return None, grad, grads.weight, *grad_fcs, *affine
