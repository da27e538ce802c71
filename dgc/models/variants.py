"""The three forms of a network: DGC, and its two baselines in which one plain convolution stands
for each DGC layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from dgc.conversion import set_gate_factors
from dgc.errors import ArgumentError
from dgc.layers import DynamicGroupConv2d
from dgc.layers.backend import HasBackend
from dgc.layers.cost import Cost, conv_macs
from dgc.layers.shuffle import shuffle
from dgc.layers.static import norm_relu_conv

Form = Literal["dgc", "dense", "sgc"]
Stem = Literal["cifar", "imagenet"]


@dataclass(frozen=True)
class Gating:
    """What every gated convolution of a network has in common."""

    heads: int = 4
    squeeze_rate: int = 16
    gate_factor: float = 0.25
    form: Form = "dgc"

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        norm: bool,
    ) -> nn.Module:
        """The convolution of this form;
        `norm` says whether a baseline keeps BatchNorm and ReLU in front.
        """
        if self.form == "dgc":
            layer = DynamicGroupConv2d(
                in_channels, out_channels, kernel_size, stride, padding, 1,
                self.heads, self.squeeze_rate, self.gate_factor,
            )  # fmt: skip
            layer.baseline_has_norm = norm
            return layer
        # a static layer needs whole groups, so its MACs are near those of DGC and seldom equal
        groups = self.static_groups if self.form == "sgc" else 1
        return NormConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            groups,
            norm=norm,
            mix=groups > 1,
        )

    @property
    def static_groups(self) -> int:
        """Groups of the static baseline: as many as bring its MACs nearest to those of DGC."""
        return max(1, round(1 / self.gate_factor))


class NormConv2d(HasBackend):
    """[BatchNorm, ReLU,] convolution without bias [, channel shuffle]:
    the static parts of the networks.

    `recompute_activations`: keep the raw input alone for backward, and make the
    activated one again.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        *,
        norm: bool = True,
        mix: bool = False,
        recompute_activations: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value % groups:
                raise ArgumentError(f"{name}={value} is no multiple of groups={groups}")
        self.norm = nn.BatchNorm2d(in_channels) if norm else None
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )
        self.mix, self.recompute_activations = mix, recompute_activations

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BOHW: Tensor = (
            self.conv(x_BCHW) if self.norm is None else self._activated(self.norm, x_BCHW)
        )
        # groups alone never mix: without a shuffle each would see its own channels for ever
        return shuffle(y_BOHW, self.conv.groups) if self.mix else y_BOHW

    def _activated(self, norm: nn.Module, x_BCHW: Tensor) -> Tensor:
        if self.recompute_activations:
            return norm_relu_conv(norm, self.conv, x_BCHW, kernels=self.kernels, triton=self.triton)
        y_BOHW: Tensor = self.conv(norm(x_BCHW).relu_())
        return y_BOHW

    def cost(self, x_CHW: tuple[int, ...], y_OHW: tuple[int, ...]) -> Cost:
        """MACs of one image, see dgc.layers.macs."""
        relu = math.prod(x_CHW) if self.norm is not None else 0
        return Cost.same(relu + conv_macs(self.conv.weight.shape, y_OHW))


def check_choice(name: str, value: str, allowed: object) -> None:
    options = get_args(allowed)
    if value not in options:
        raise ArgumentError(f"{name}={value!r}: one of {', '.join(options)}")


def own_shares(model: nn.Module, form: Form, gate_factors: Mapping[str, float] | None) -> None:
    """Give layers their own gate_factor; a dense network has nothing to choose."""
    if not gate_factors or form == "dense":
        return
    if form == "sgc":
        raise ArgumentError("gate_factors are of form='dgc': groups are the same in every layer")
    try:
        set_gate_factors(model, gate_factors)
    except ArgumentError as error:
        raise ArgumentError(f"gate_factors: {error}") from None


def initialise(model: nn.Module) -> None:
    """Released initialisation: convolutions normal(0,
    sqrt(2 / (k*k*out))), biases of linear layers 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
