"""A whole dynamic layer by the C++ kernels, for float32 on the CPU. A head's kernels read the
channels on its list alone; nothing is gathered or multiplied by zero.

Kept for backward: the raw input, the pooled input, gates and lists, as the plain algorithms do.
Legend: B samples, G heads, C channels, K capacity of a head's list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgc.kernels.cpu import train_passes
from dgc.kernels.cpu.train_passes import Affine, PassShape, SelectedChannels
from dgc.layers import gating, selection
from dgc.layers.algorithms.native_norm import affine_of, input_grad
from dgc.layers.gating import gates_backward
from dgc.layers.norm import Rule, activations, chain_backward, chain_of


class Gated(NamedTuple):
    """What the gates said of a batch:
    the pooled input (B, C), all gates (B, G, C), and what they chose.
    """

    pooled: Tensor
    gates: Tensor
    selected: SelectedChannels

    @classmethod
    def of(
        cls, x: Tensor, affine: Affine | None, fc1: Tensor, fc2: Tensor, fc2_bias: Tensor, n: int
    ) -> Gated:
        pooled_BC = train_passes.pooled(x, affine)
        gates_BGC = gating.gates(pooled_BC, fc1, fc2, fc2_bias)
        return cls(pooled_BC, gates_BGC, train_passes.select_channels(gates_BGC, n))

    @classmethod
    def from_saved(cls, tensors: Sequence[Tensor]) -> Gated:
        pooled_BC, gates_BGC, *selected = tensors
        return cls(pooled_BC, gates_BGC, SelectedChannels(*selected))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.pooled, self.gates, *self.selected

    # `heard`: what the convolution says to the gates on a head's list, in the order of that list
    def backward(
        self, heard_BGK: Tensor, grad_l1: Tensor, fc1: Tensor, fc2: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of the pooled input, fc1, fc2, fc2_bias:
        from the convolution and from the gate L1 (a scalar).
        """
        # the outer ReLU of the gates: where it is off, neither term gets through
        positive = self.gates > 0
        grad_BGC = torch.zeros_like(self.gates).scatter_add_(
            -1, self.selected.channels.long(), heard_BGK
        )
        grad_BGC = (grad_BGC + grad_l1 / self.gates[:, 0].numel()) * positive
        return gates_backward(grad_BGC, self.pooled, fc1, fc2)


class LayerSetting(NamedTuple):
    rules: tuple[Rule, ...]
    n_inactive: int
    shape: PassShape
    record: bool  # the gates that were left on are wanted


class NativeLayer(torch.autograd.Function):
    """A whole layer, as FusedLayer: (x, weight, fc1, fc2,
    fc2_bias, four tensors a norm) -> (y, gate L1, gates).
    """

    @staticmethod
    def forward(
        ctx: Any,
        setting: LayerSetting,
        x: Tensor,
        weight: Tensor,
        fc1: Tensor,
        fc2: Tensor,
        fc2_bias: Tensor,
        *norms: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        chain = chain_of(norms, setting.rules)
        u = activations(chain[:-1], x)[-1]
        # the last BatchNorm and its ReLU are part of the kernels: their output is never written
        affine = affine_of(chain[-1]) if chain else None
        gated = Gated.of(u, affine, fc1, fc2, fc2_bias, setting.n_inactive)
        y = u.new_empty(len(u), len(weight), *setting.shape.window.output(setting.shape.size))
        train_passes.forward(
            setting.shape, u, affine, gated.selected, setting.shape.pack(weight), y
        )
        ctx.setting = setting
        ctx.save_for_backward(x, weight, fc1, fc2, *gated.tensors, *norms)
        gates = gated.gates
        # as a whole tensor the choice is made only for somebody who counts it
        selected_BGC = (
            selection.switch_off(gates, setting.n_inactive)
            if setting.record
            else gates.new_empty(0)
        )
        ctx.mark_non_differentiable(selected_BGC)
        return y, gating.gate_l1(gates), selected_BGC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_l1: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, fc1, fc2, *saved = ctx.saved_tensors
        setting, gated, chain = (
            ctx.setting,
            Gated.from_saved(saved[:5]),
            chain_of(saved[5:], ctx.setting.rules),
        )
        inputs = activations(chain[:-1], x)
        link = chain[-1] if chain else None
        affine = None if link is None else affine_of(link)
        packed, grad_y = setting.shape.pack(weight), train_passes.planes(grad_y)
        given = (setting.shape, inputs[-1], affine, gated.selected, packed, grad_y)
        # two passes: the first gives weights and gates, whose way back to the pooled input the
        # second adds to the input's gradient while it writes that
        grad_packed, heard = train_passes.grad_weight(*given)
        assert heard is not None
        grad_pooled, *grad_fcs = gated.backward(heard, grad_l1, fc1, fc2)
        grad_u = torch.empty_like(inputs[-1])
        sums = train_passes.grad_input(*given, grad_pooled.div_(x.shape[2] * x.shape[3]), grad_u)
        grad_norm = [*input_grad(link, inputs[-1], grad_u, sums), None, None] if chain else []
        grad_x, grad_norms = chain_backward(chain[:-1], grad_u, inputs)
        return None, grad_x, setting.shape.unpack(grad_packed), *grad_fcs, *grad_norms, *grad_norm
