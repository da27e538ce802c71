"""A residual block of two dynamic convolutions as one autograd function: what stands around them is
computed in single passes, and the gradient of the block's input is summed where it lies.

    out = relu(B2(conv2(relu(B1(conv1(x))))) + x or Bd(convd(x)))

each convolution with its own gates, BatchNorm and ReLU in front. The kernels fold the BatchNorms in
and take the moments of what they write. Kept for backward: x, what each convolution gave, the
output, and the gates; relu(B1(..)) is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dgc.kernels.cpu import norm_passes, train_passes
from dgc.kernels.cpu.train_passes import PassShape, PlaneMoments
from dgc.layers import gating
from dgc.layers.algorithms.native_layer import Gated
from dgc.layers.algorithms.native_norm import affine_of, norm_grads
from dgc.layers.norm import Moments, Normaliser, Rule, batch_moments, move_on

if TYPE_CHECKING:
    from dgc.layers.dynamic import DynamicGroupConv2d

# tensors of a branch that come from its modules, and that are made on the way
PARAMETERS, SAVED = 8, 10


class Branch(NamedTuple):
    """A dynamic convolution and the BatchNorm behind it."""

    dynamic: DynamicGroupConv2d
    norm: nn.Module

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        d = self.dynamic
        norm_in, norm = cast("nn.BatchNorm2d", d.norm), cast("nn.BatchNorm2d", self.norm)
        own = (norm_in.weight, norm_in.bias, d.weight, d.fc1, d.fc2, d.fc2_bias)
        return (*own, norm.weight, norm.bias)


def run(branches: Sequence[Branch], x_BCHW: Tensor) -> Tensor:
    """The block of (first, second[, downsampling]); sets each layer's gate L1."""
    # one flat list: autograd sees tensors that are arguments, not those inside of modules
    parameters = [t for branch in branches for t in branch.parameters]
    out: tuple[Tensor, Tensor] = _BasicBlock.apply(tuple(branches), x_BCHW, *parameters)
    for branch, gate_l1 in zip(branches, out[1].unbind(), strict=True):
        branch.dynamic._last_gate_l1 = gate_l1
    return out[0]


class _BranchNumbers(NamedTuple):
    """A branch in numbers."""

    shape: PassShape
    eps: tuple[float, float]
    n_inactive: int

    @classmethod
    def of(cls, branch: Branch, x: Tensor) -> _BranchNumbers:
        d, h, w = branch.dynamic, x.shape[2], x.shape[3]
        norms = cast("nn.BatchNorm2d", d.norm), cast("nn.BatchNorm2d", branch.norm)
        return cls(d.native_shape((h, w)), (norms[0].eps, norms[1].eps), d.n_inactive)


class _Made(NamedTuple):
    """What a branch made of its input: y, its BatchNorms on this batch, and the gates."""

    y: Tensor
    before: Normaliser
    behind: Normaliser
    gated: Gated

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        moments = (self.before.mean, self.before.var, self.behind.mean, self.behind.var)
        return (self.y, *moments, *self.gated.tensors)

    @classmethod
    def from_saved(cls, s: _BranchNumbers, own: Sequence[Tensor], saved: Sequence[Tensor]) -> _Made:
        y, mean, var, its_mean, its_var, *gates = saved
        before = Normaliser(own[0], own[1], mean, var, Rule(s.eps[0], True))
        behind = Normaliser(own[6], own[7], its_mean, its_var, Rule(s.eps[1], True))
        return cls(y, before, behind, Gated.from_saved(gates))


def _each(tensors: Sequence[Tensor], n: int) -> list[Sequence[Tensor]]:
    return [tensors[i : i + n] for i in range(0, len(tensors), n)]


def _make(
    s: _BranchNumbers, branch: Branch, own: Sequence[Tensor], x: Tensor, found: Moments
) -> _Made:
    """One convolution on x, whose moments are known; running statistics move on."""
    before = Normaliser(own[0], own[1], *found, Rule(s.eps[0], True))
    affine = affine_of(before)
    gated = Gated.of(x, affine, own[3], own[4], own[5], s.n_inactive)
    y = x.new_empty(len(x), len(own[2]), *s.shape.window.output(s.shape.size))
    packed = s.shape.pack(own[2])
    planes = train_passes.forward(s.shape, x, affine, gated.selected, packed, y, with_moments=True)
    behind = Normaliser(own[6], own[7], *_moments(planes, y), Rule(s.eps[1], True))
    move_on(cast("nn.BatchNorm2d", branch.dynamic.norm), found, x.numel() // x.shape[1])
    move_on(
        cast("nn.BatchNorm2d", branch.norm),
        Moments(behind.mean, behind.var),
        y.numel() // y.shape[1],
    )
    return _Made(y, before, behind, gated)


def _moments(planes: PlaneMoments | None, of: Tensor) -> Moments:
    assert planes is not None
    return batch_moments(planes, of.shape[2] * of.shape[3])


class _BasicBlock(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, branches: tuple[Branch, ...], x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        owns = _each(parameters, PARAMETERS)
        known = _moments(train_passes.moments(x), x)
        settings = [_BranchNumbers.of(branches[0], x)]
        first = _make(settings[0], branches[0], owns[0], x, known)
        u, planes = norm_passes.relu(first.y, affine_of(first.behind))
        settings.append(_BranchNumbers.of(branches[1], u))
        second = _make(settings[1], branches[1], owns[1], u, _moments(planes, u))
        made = [first, second]
        other, its = x, None
        if len(branches) > 2:  # downsampling: the block's input goes through a branch of its own
            settings.append(_BranchNumbers.of(branches[2], x))
            made.append(_make(settings[2], branches[2], owns[2], x, known))
            other, its = made[2].y, affine_of(made[2].behind)
        out, _ = norm_passes.relu(second.y, affine_of(second.behind), other, its)
        ctx.settings = settings
        ctx.save_for_backward(x, out, *parameters, *(t for m in made for t in m.tensors))
        return out, torch.stack([gating.gate_l1(m.gated.gates) for m in made])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_l1: Tensor) -> tuple[Tensor | None, ...]:
        x, out, *rest = ctx.saved_tensors
        count = PARAMETERS * len(ctx.settings)
        owns, saved = _each(rest[:count], PARAMETERS), _each(rest[count:], SAVED)
        made = [_Made.from_saved(*parts) for parts in zip(ctx.settings, owns, saved, strict=True)]
        walk = _WayBack(ctx.settings, owns, made, grad_l1.unbind())
        return None, *walk.back(x, out, train_passes.planes(grad_out))


class _WayBack:
    """The way back through a block."""

    def __init__(
        self,
        settings: Sequence[_BranchNumbers],
        owns: Sequence[Sequence[Tensor]],
        made: Sequence[_Made],
        grad_l1: Sequence[Tensor],
    ) -> None:
        self.settings, self.owns, self.made, self.grad_l1 = settings, owns, made, grad_l1

    def back(self, x: Tensor, out: Tensor, grad_out: Tensor) -> list[Tensor]:
        """The gradient of x, then those of all parameters in their order."""
        first, second, *third = self.made
        other, its = (third[0].y, affine_of(third[0].behind)) if third else (x, None)
        # through the last ReLU: what both ways to it hear, and the sums of their BatchNorms
        grad, sums = norm_passes.through_relu(
            grad_out, second.y, affine_of(second.behind), y=out, other=other, its=its
        )
        grad_y, behind = _through_norm(second, grad, sums[:2])
        affine = affine_of(first.behind)
        u, _ = norm_passes.relu(first.y, affine)
        grad_u, before, grads = self._convolution(1, u, grad_y)
        grads += behind
        # what is still to add to u's gradient is added on its way through u's own ReLU
        _, sums_u = norm_passes.through_relu(grad_u, first.y, affine, added=before, out=grad_u)
        grad_y, behind = _through_norm(first, grad_u, sums_u[:2], out=grad_u)
        of_third: list[Tensor] = []
        into = None if third else grad  # as it is, what came through the sum is x's gradient
        if third:
            grad_d, behind_d = _through_norm(third[0], grad, sums[::2], out=grad)
            into, added, of_third = self._convolution(2, x, grad_d)
            of_third += behind_d
        grad_x, before, of_first = self._convolution(0, x, grad_y, into)
        if third:
            before = before[0] + added[0], before[1] + added[1]
        train_passes.add_affine(grad_x, x, *before)
        return [grad_x, *of_first, *behind, *grads, *of_third]

    def _convolution(
        self, i: int, x: Tensor, grad_y: Tensor, into: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor], list[Tensor]]:
        """Through a convolution and the BatchNorm in front: the gradient of x, to which x * a + b
        is still to be added; a and b; the gradients of the parameters. Added to `into`.
        """
        s, own, made = self.settings[i], self.owns[i], self.made[i]
        affine, packed = affine_of(made.before), s.shape.pack(own[2])
        given = (s.shape, x, affine, made.gated.selected, packed, grad_y)
        grad_packed, heard = train_passes.grad_weight(*given)
        assert heard is not None
        grad_pooled, *grad_fcs = made.gated.backward(heard, self.grad_l1[i], own[3], own[4])
        grad_pooled.div_(x.shape[2] * x.shape[3])
        out = torch.empty_like(x) if into is None else into
        sums = train_passes.grad_input(*given, grad_pooled, out, add=into is not None)
        norm = norm_grads(made.before, sums, x.numel() // x.shape[1])
        grads = [norm.weight, norm.bias, s.shape.unpack(grad_packed), *grad_fcs]
        return out, (norm.a.float(), norm.b.float()), grads


def _through_norm(
    made: _Made, grad: Tensor, sums: Tensor, out: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The gradient of what stands in front of the BatchNorm behind a convolution; that of its
    weight and bias.
    """
    sum_g, sum_gx = sums
    norm = norm_grads(made.behind, (sum_g, sum_gx), made.y.numel() // made.y.shape[1])
    a, b, scale = norm.a.float(), norm.b.float(), affine_of(made.behind).scale
    return norm_passes.back(grad, made.y, scale, a, b, out), [norm.weight, norm.bias]
