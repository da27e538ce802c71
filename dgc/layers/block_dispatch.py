"""Whether a whole block is computed as one by the C++ kernels. All conditions of its table hold, or
it goes layer by layer (dgc.layers.dispatch).

    BLOCK     a dense block (dgc.layers.dense_block)
    RESIDUAL  a residual block of two dynamic convolutions (dgc.layers.basic_block)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from dgc.layers.support import can_fuse, hooked, is_supported, trains_on_batch


class _Gated(Protocol):
    """A dynamic layer, as far as a block looks at it."""

    @property
    def norm(self) -> nn.Module | None: ...
    @property
    def gate_record(self) -> object: ...
    @property
    def bias(self) -> object: ...
    @property
    def kernels(self) -> bool: ...


class _Shaped(_Gated, Protocol):
    """The same, with the sizes of what it takes and gives."""

    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    def output_size(self, size: int) -> int: ...


class LayerParts(Protocol):
    """A dense layer: gated 1x1, then BatchNorm, ReLU and grouped convolution."""

    @property
    def dynamic(self) -> _Gated: ...
    @property
    def norm(self) -> nn.Module: ...
    @property
    def conv(self) -> nn.Conv2d: ...
    @property
    def parameters(self) -> tuple[Tensor, ...]: ...


class BranchParts(Protocol):
    """A dynamic convolution and the BatchNorm behind it."""

    @property
    def dynamic(self) -> _Shaped: ...
    @property
    def norm(self) -> nn.Module: ...
    @property
    def parameters(self) -> tuple[Tensor, ...]: ...


class BlockCall(NamedTuple):
    block: nn.Module
    layers: Sequence[LayerParts]
    x: Tensor


class ResidualCall(NamedTuple):
    block: nn.Module
    layers: Sequence[BranchParts]
    x: Tensor


# in training alone: the block takes moments of the
# batch, which BatchNorm does not use in evaluation
def _trains(c: BlockCall | ResidualCall) -> bool:
    return bool(c.block.training and c.layers and can_fuse(c.x) and torch.is_grad_enabled())


def _nobody_looks_inside(c: BlockCall | ResidualCall) -> bool:
    """A hook on a part would not be called."""
    # a hook on the block itself is called; its parts are never called as modules
    globally = nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    return not globally and not any(hooked(m) for m in c.block.modules() if m is not c.block)


def _gated_as_kernels_know(c: BlockCall | ResidualCall) -> bool:
    return all(
        trains_on_batch(p.dynamic.norm)
        and trains_on_batch(p.norm)
        and p.dynamic.kernels
        # the block hands out no gates: whoever counts them goes layer by layer
        and p.dynamic.gate_record is None
        and p.dynamic.bias is None
        and is_supported(c.x, *p.parameters)
        for p in c.layers
    )


def _grouped_without_bias(c: BlockCall) -> bool:
    return all(p.conv.bias is None and p.conv.groups > 1 for p in c.layers)


BLOCK: tuple[Callable[[BlockCall], bool], ...] = (
    _trains,
    _nobody_looks_inside,
    _gated_as_kernels_know,
    _grouped_without_bias,
)


def _more_than_one_value(c: ResidualCall) -> bool:
    """A second BatchNorm of one value a channel is refused where it is computed."""
    return c.x.dim() == 4 and c.x.numel() // c.x.shape[1] > 1


def _sizes_fit(c: ResidualCall) -> bool:
    """The kernels take sizes as they are told: what does not fit is refused by the modules."""
    first, second, *third = c.layers
    given: tuple[int, ...] = tuple(c.x.shape[1:])
    identity = given
    for branch in third:
        identity = _after(branch, given)
    return _after(second, _after(first, given)) == identity != ()


def _after(branch: BranchParts, given: tuple[int, ...]) -> tuple[int, ...]:
    """Channels, height and width behind a branch; nothing, where they do not fit."""
    d, widths = branch.dynamic, [cast("nn.BatchNorm2d", n).num_features for n in _norms(branch)]
    if not given or [given[0], d.out_channels] != widths or given[0] != d.in_channels:
        return ()
    size = [d.output_size(n) for n in given[1:]]
    return (d.out_channels, *size) if min(size) > 0 else ()


def _norms(branch: BranchParts) -> tuple[nn.Module | None, nn.Module]:
    return branch.dynamic.norm, branch.norm


RESIDUAL: tuple[Callable[[ResidualCall], bool], ...] = (
    _trains,
    _more_than_one_value,
    _nobody_looks_inside,
    _gated_as_kernels_know,
    _sizes_fit,
)


def whole_residual(call: ResidualCall) -> bool:
    """Whether a residual block is computed as one (dgc.layers.basic_block)."""
    return all(need(call) for need in RESIDUAL)


def whole_block(call: BlockCall) -> bool:
    """Whether a dense block is computed as one, over one buffer."""
    return all(need(call) for need in BLOCK)
