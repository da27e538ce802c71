"""DyResNet18: resnet18 whose 3x3 and downsampling convolutions are DGC layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from dgc.layers import DynamicGroupConv2d, basic_block, block_dispatch, support
from dgc.layers.backend import HasBackend
from dgc.layers.cost import Cost
from dgc.layers.static import norm_relu_pool
from dgc.models.variants import Form, Gating, Stem, check_choice, initialise, own_shares

WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """[BN ReLU DGC] BN ReLU [BN ReLU DGC] BN + identity, ReLU;
    the downsampling path is [BN ReLU DGC 1x1] BN.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, gating: Gating) -> None:
        super().__init__()
        self.counts_children = True  # of itself it counts its two ReLUs only
        self.conv1 = gating.conv(in_channels, out_channels, 3, stride, 1, norm=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = gating.conv(out_channels, out_channels, 3, 1, 1, norm=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            shortcut = gating.conv(in_channels, out_channels, 1, stride, norm=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    @property
    def branches(self) -> list[basic_block.Branch]:
        """What can be computed as one: two dynamic convolutions, and the downsampling where there
        is one. None, where somebody has put something else in a place.
        """
        pairs: list[tuple[nn.Module, ...]] = [(self.conv1, self.bn1), (self.conv2, self.bn2)]
        if self.downsample is not None:
            pairs.append(tuple(self.downsample.children()))
        sequence = self.downsample is None or type(self.downsample) is nn.Sequential
        # exactly these: a subclass may compute anything
        if not sequence or any(len(p) != 2 or type(p[0]) is not DynamicGroupConv2d for p in pairs):
            return []
        return [basic_block.Branch(cast("DynamicGroupConv2d", conv), norm) for conv, norm in pairs]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # a tracer sees the modules alone
        branches = self.branches if self.training and support.can_fuse(x_BCHW) else []
        if block_dispatch.whole_residual(block_dispatch.ResidualCall(self, branches, x_BCHW)):
            return basic_block.run(branches, x_BCHW)
        identity = x_BCHW if self.downsample is None else self.downsample(x_BCHW)
        y_BCHW = self.conv1(x_BCHW)
        # the BatchNorm goes along: the layer keeps its raw input alone for backward
        if isinstance(self.conv2, DynamicGroupConv2d):
            y_BCHW = self.conv2(y_BCHW, input_norm=self.bn1)
        else:
            y_BCHW = self.conv2(torch.relu(self.bn1(y_BCHW)))
        return torch.relu(self.bn2(y_BCHW) + identity)

    def cost(self, x_CHW: tuple[int, ...], y_OHW: tuple[int, ...]) -> Cost:
        """MACs of one image beside those of its children, see dgc.layers.macs."""
        return Cost.same(2 * math.prod(y_OHW))


class DyResNet18(HasBackend):
    """Takes (B, 3, H, W), returns logits (B, num_classes).
    Source: released code, `models/dyresnet.py`.

    stem='imagenet': 7x7/2 convolution, BN, ReLU, 3x3/2 max-pool; stem='cifar': 3x3 convolution, BN,
    ReLU. `gate_factors` gives layers a gate_factor of their own, see dgc.set_gate_factors.
    """

    def __init__(
        self,
        heads: int = 4,
        squeeze_rate: int = 16,
        gate_factor: float = 0.45,
        num_classes: int = 1000,
        form: Form = "dgc",
        stem: Stem = "imagenet",
        gate_factors: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        check_choice("form", form, Form)
        check_choice("stem", stem, Stem)
        gating = Gating(heads, squeeze_rate, gate_factor, form)
        # the baselines are what plain PyTorch makes of them
        self.recompute_activations = form == "dgc"
        small = stem == "cifar"
        self.conv1 = (
            nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            if small
            else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            _stage(WIDTHS[max(0, i - 1)], width, 1 if i == 0 else 2, gating)
            for i, width in enumerate(WIDTHS)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(WIDTHS[-1], num_classes)
        initialise(self)
        own_shares(self, form, gate_factors)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv1(x_BCHW)
        if self.recompute_activations:
            x_BCHW = norm_relu_pool(
                self.bn1,
                self.relu,
                self.maxpool,
                x_BCHW,
                kernels=self.kernels,
                triton=self.triton,
            )
        else:
            x_BCHW = self.maxpool(self.relu(self.bn1(x_BCHW)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x_BCHW = stage(x_BCHW)
        logits_BN: Tensor = self.fc(self.avgpool(x_BCHW).flatten(1))
        return logits_BN


def _stage(in_channels: int, out_channels: int, stride: int, gating: Gating) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(in_channels, out_channels, stride, gating),
        BasicBlock(out_channels, out_channels, 1, gating),
    )
