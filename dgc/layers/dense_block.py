"""A dense block as one autograd function over one buffer: no concatenation, no copy of a channel
for each layer.

Every layer reads the front of the buffer and writes its own channels behind. Backward walks the
same way back with one buffer of gradients. A channel's mean and variance are common to all layers,
so what they add to the gradient (x * a + b, see dgc.layers.algorithms.native_norm) is summed over
the layers and added once, when the channel's gradient is complete. Kept for backward: the buffer,
each layer's bottleneck, and the gates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dgc.kernels.cpu import train_passes
from dgc.kernels.cpu.train_passes import PassShape
from dgc.layers import gating
from dgc.layers.algorithms.native_layer import Gated
from dgc.layers.algorithms.native_norm import affine_of, input_grad, norm_grads
from dgc.layers.algorithms.native_static import static_shape
from dgc.layers.norm import Moments, Normaliser, Rule, batch_moments, move_on

if TYPE_CHECKING:
    from dgc.layers.dynamic import DynamicGroupConv2d

# tensors of a layer that come from its modules, and that are made on the way
PARAMETERS, SAVED = 9, 8


class Parts(NamedTuple):
    """The modules of one dense layer: gated 1x1, then BatchNorm, ReLU and grouped convolution."""

    dynamic: DynamicGroupConv2d
    norm: nn.Module
    conv: nn.Conv2d

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        d, norm_in, norm = self.dynamic, self.dynamic.norm, self.norm
        assert isinstance(norm_in, nn.BatchNorm2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return (
            norm_in.weight,
            norm_in.bias,
            d.weight,
            d.fc1,
            d.fc2,
            d.fc2_bias,
            norm.weight,
            norm.bias,
            self.conv.weight,
        )


def run(layers: Sequence[Parts], x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C + all growth, H, W); sets each layer's gate L1."""
    # one flat list: autograd sees tensors that are arguments, not those inside of modules
    parameters = [t for p in layers for t in p.parameters]
    out: tuple[Tensor, Tensor] = _Block.apply(tuple(layers), x_BCHW, *parameters)
    for part, gate_l1 in zip(layers, out[1].unbind(), strict=True):
        # as the layer's own forward would have left it
        part.dynamic._last_gate_l1 = gate_l1
    return out[0]


class _Setting(NamedTuple):
    """One layer in numbers: where its input ends in the buffer, and its two convolutions."""

    width: int
    grown: int
    dynamic: PassShape
    static: PassShape
    eps: tuple[float, float]
    n_inactive: int

    @classmethod
    def of(cls, p: Parts, size: tuple[int, int]) -> _Setting:
        d = p.dynamic
        eps = (d.norm.eps, p.norm.eps)  # type: ignore[union-attr]
        grown = d.in_channels + p.conv.out_channels
        return cls(
            d.in_channels,
            grown,
            d.native_shape(size),
            static_shape(p.conv, size),
            eps,  # type: ignore[arg-type]
            d.n_inactive,
        )


class _Links(NamedTuple):
    """The two BatchNorms of a layer on this batch."""

    first: Normaliser
    second: Normaliser

    @classmethod
    def of(
        cls, s: _Setting, parameters: Sequence[Tensor], input_moments: Moments, second: Moments
    ) -> _Links:
        # moments of the batch in both: see block_dispatch.BLOCK
        rules = [Rule(eps, True) for eps in s.eps]
        # moments are of channels, not of layers: a layer takes those of the channels it reads
        front = (input_moments.mean[: s.width], input_moments.var[: s.width])
        first = Normaliser.of([*parameters[0:2], *front], rules[0])
        return cls(first, Normaliser.of([*parameters[6:8], *second], rules[1]))


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, layers: tuple[Parts, ...], x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        b, width, h, w = x.shape
        settings = tuple(_Setting.of(p, (h, w)) for p in layers)
        # the block's output, allocated once: a layer reads the channels in front of its own
        buffer = x.new_empty(b, settings[-1].grown, h, w)
        buffer[:, :width] = x
        input_moments = Moments(x.new_empty(settings[-1].grown), x.new_empty(settings[-1].grown))
        _note(input_moments, slice(0, width), batch_moments(train_passes.moments(x), h * w))
        # moments of each channel, computed once when it is written, and read by every layer behind
        saved, gate_l1 = [], []
        for part, s, own in zip(layers, settings, _each(parameters, PARAMETERS), strict=True):
            made, l1 = _forward(part, s, own, buffer, input_moments)
            saved += made
            gate_l1.append(l1)
        ctx.settings = settings
        ctx.save_for_backward(buffer, *input_moments, *parameters, *saved)
        return buffer, torch.stack(gate_l1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_l1: Tensor) -> tuple[Tensor | None, ...]:
        buffer, mean, var, *rest = ctx.saved_tensors
        count = PARAMETERS * len(ctx.settings)
        owns = list(_each(rest[:count], PARAMETERS))
        saved_by_layer = list(_each(rest[count:], SAVED))
        # a copy, since the layers add to it; in one layout, whatever autograd handed over
        walk = _Walk(
            buffer, Moments(mean, var), grad_out.clone(memory_format=torch.contiguous_format)
        )
        grads: list[Tensor] = []
        # last layer first: when a layer is reached, every reader of its channels has been walked
        for i in reversed(range(len(ctx.settings))):
            grads[:0] = walk.back(ctx.settings[i], owns[i], saved_by_layer[i], grad_l1[i])
        return None, walk.complete(slice(0, ctx.settings[0].width)), *grads


def _each(tensors: Sequence[Tensor], n: int) -> Iterator[Sequence[Tensor]]:
    return (tensors[i : i + n] for i in range(0, len(tensors), n))


def _note(input_moments: Moments, where: slice, found: Moments) -> None:
    input_moments.mean[where], input_moments.var[where] = found


def _forward(
    part: Parts, s: _Setting, own: Sequence[Tensor], buffer: Tensor, input_moments: Moments
) -> tuple[list[Tensor], Tensor]:
    """One layer: its channels go into the buffer.
    Returns what backward needs (SAVED tensors), and the gate L1.
    """
    front, pixels = buffer[:, : s.width], buffer.shape[2] * buffer.shape[3]
    count = len(buffer) * pixels
    _, _, weight, fc1, fc2, fc2_bias, _, _, weight_2 = own
    # the second BatchNorm's moments are only known once its input is written
    empty = Moments(buffer.new_empty(0), buffer.new_empty(0))
    first = _Links.of(s, own, input_moments, empty).first
    affine = affine_of(first)
    gated = Gated.of(front, affine, fc1, fc2, fc2_bias, s.n_inactive)
    y = buffer.new_empty(len(buffer), len(weight), *buffer.shape[2:])
    # the kernels take the moments of what they write while it is in the cache
    planes = train_passes.forward(
        s.dynamic, front, affine, gated.selected, s.dynamic.pack(weight), y, with_moments=True
    )
    assert planes is not None
    second = batch_moments(planes, pixels)
    fresh = slice(s.width, s.grown)
    link = _Links.of(s, own, input_moments, second).second
    grown = train_passes.forward(
        s.static,
        y,
        affine_of(link),
        None,
        s.static.pack(weight_2),
        buffer[:, fresh],
        with_moments=True,
    )
    assert grown is not None
    _note(input_moments, fresh, batch_moments(grown, pixels))
    # the running statistics of both BatchNorms, as each module would have moved them
    move_on(part.dynamic.norm, Moments(first.mean, first.var), count)  # type: ignore[arg-type]
    move_on(part.norm, second, count)  # type: ignore[arg-type]
    return [y, *second, *gated.tensors], gating.gate_l1(gated.gates)


class _Walk:
    """The way back: a buffer of gradients,
    and what mean and variance of each channel are still to add to it.
    """

    def __init__(self, buffer: Tensor, input_moments: Moments, grad: Tensor) -> None:
        self.buffer, self.input_moments, self.grad = buffer, input_moments, grad
        # in double: sums over all layers of the block
        self.a, self.b = (torch.zeros(buffer.shape[1], dtype=torch.float64) for _ in range(2))

    def complete(self, where: slice) -> Tensor:
        """The gradient of these channels; no layer behind reads them any more."""
        grad = self.grad[:, where]
        train_passes.add_affine(
            grad, self.buffer[:, where], self.a[where].float(), self.b[where].float()
        )
        return grad

    def back(
        self, s: _Setting, own: Sequence[Tensor], saved: Sequence[Tensor], grad_l1: Tensor
    ) -> tuple[Tensor, ...]:
        """One layer: the gradient of its input joins the buffer's,
        those of its parameters are returned.
        """
        y, mean, var, *gates = saved
        links, gated = (
            _Links.of(s, own, self.input_moments, Moments(mean, var)),
            Gated.from_saved(gates),
        )
        # from behind: the grouped convolution first, whose gradient is that of the layer's channels
        grad_y, grad_weight_2, grad_norm_2 = self._static(s, own, y, links.second)
        front, fronts_grad = self.buffer[:, : s.width], self.grad[:, : s.width]
        given = (
            s.dynamic,
            front,
            affine_of(links.first),
            gated.selected,
            s.dynamic.pack(own[2]),
            grad_y,
        )
        grad_packed, heard = train_passes.grad_weight(*given)
        assert heard is not None
        grad_pooled, *grad_fcs = gated.backward(heard, grad_l1, own[3], own[4])
        grad_pooled.div_(front.shape[2] * front.shape[3])
        # added to what the layers behind have left there
        sums = train_passes.grad_input(*given, grad_pooled, fronts_grad, add=True)
        norm = norm_grads(links.first, sums, front.numel() // s.width)
        # x * a + b of this layer's BatchNorm; what else reads these channels adds its own to it
        self.a[: s.width] += norm.a
        self.b[: s.width] += norm.b
        return (
            norm.weight,
            norm.bias,
            s.dynamic.unpack(grad_packed),
            *grad_fcs,
            *grad_norm_2,
            grad_weight_2,
        )

    def _static(
        self, s: _Setting, own: Sequence[Tensor], y: Tensor, link: Normaliser
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Gradients of the bottleneck, of the grouped convolution's weights, of its BatchNorm."""
        # nobody behind reads these channels any more, so their gradient is whole now
        grad_fresh = self.complete(slice(s.width, s.grown))
        given = (s.static, y, affine_of(link), None, s.static.pack(own[8]), grad_fresh)
        grad_packed, _ = train_passes.grad_weight(*given)
        grad_y = torch.empty_like(y)
        sums = train_passes.grad_input(*given, None, grad_y)
        grad_norm = input_grad(link, y, grad_y, sums)
        assert grad_norm[0] is not None
        assert grad_norm[1] is not None
        return grad_y, s.static.unpack(grad_packed), (grad_norm[0], grad_norm[1])
