"""DyDenseNet: the condensenet skeleton (also densenet86) with DGC in front of every growth
convolution.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dgc.errors import ArgumentError
from dgc.layers import DynamicGroupConv2d, block_dispatch, dense_block, support
from dgc.layers.backend import HasBackend
from dgc.layers.norm import Moments, extend, moments
from dgc.layers.static import norm_relu_pool, window_means
from dgc.models.variants import Form, Gating, NormConv2d, Stem, check_choice, initialise, own_shares


class DenseLayer(nn.Module):
    """DGC 1x1 (C -> bottleneck * growth), BN, ReLU,
    grouped 3x3 (-> growth), concatenated behind the input.
    """

    def __init__(
        self, in_channels: int, growth: int, bottleneck: int, group_3x3: int, gating: Gating
    ) -> None:
        super().__init__()
        self.conv_1 = gating.conv(in_channels, bottleneck * growth, 1, norm=True)
        self.conv_2 = NormConv2d(
            bottleneck * growth,
            growth,
            3,
            1,
            1,
            group_3x3,
            recompute_activations=gating.form == "dgc",
        )

    @property
    def parts(self) -> dense_block.Parts:
        assert self.conv_2.norm is not None
        return dense_block.Parts(
            cast("DynamicGroupConv2d", self.conv_1), self.conv_2.norm, self.conv_2.conv
        )

    def forward(self, x_BCHW: Tensor, input_moments: Moments | None = None) -> Tensor:
        """`input_moments`: the moments of x, for its first BatchNorm, where the block has them."""
        y_BCHW = (
            self.conv_1(x_BCHW)
            if input_moments is None
            else self.conv_1(x_BCHW, input_moments=input_moments)
        )
        return torch.cat([x_BCHW, self.conv_2(y_BCHW)], 1)


class DenseBlock(nn.Sequential):
    """Dense layers one after the other.
    Each channel's moments are computed once, not again in every layer.
    """

    def forward(self, x_BCHW: Tensor) -> Tensor:
        first = self[0].conv_1
        if isinstance(first, DynamicGroupConv2d):
            layers = [cast("DenseLayer", m).parts for m in self]
            if block_dispatch.whole_block(block_dispatch.BlockCall(self, layers, x_BCHW)):
                return dense_block.run(layers, x_BCHW)
        if not (
            self.training
            and isinstance(first, DynamicGroupConv2d)
            and first.norm is not None
            and support.can_fuse(x_BCHW)
            # on a GPU launches cost more than a pass: each BatchNorm is one call
            and not support.gpu_functions(x_BCHW, triton=first.triton)
        ):
            return cast("Tensor", super().forward(x_BCHW))  # type: ignore[no-untyped-call]
        input_moments = moments(
            x_BCHW, first.weight.dtype, kernels=first.kernels, triton=first.triton
        )
        for layer in self:
            width = x_BCHW.shape[1]
            x_BCHW = layer(x_BCHW, input_moments)
            input_moments = extend(
                input_moments, x_BCHW[:, width:], kernels=first.kernels, triton=first.triton
            )
        return x_BCHW


class DyDenseNet(HasBackend):
    """Stem 3x3 (2 * growth[0] channels; stride 1 for 'cifar', 2 for 'imagenet'), dense blocks with
    2x2 average pooling between them, BN, ReLU, global average, linear. Takes (B, 3, H, W), returns
    logits (B, num_classes).

    Source: released code, `models/dydensenet.py`; with form='dense' or 'sgc' its baselines.
    `gate_factors` gives layers a gate_factor of their own, see dgc.set_gate_factors.
    """

    def __init__(
        self,
        stages: Sequence[int] = (14, 14, 14),
        growth: Sequence[int] = (8, 16, 32),
        bottleneck: int = 4,
        group_3x3: int = 4,
        heads: int = 4,
        squeeze_rate: int = 16,
        gate_factor: float = 0.25,
        num_classes: int = 10,
        form: Form = "dgc",
        stem: Stem = "cifar",
        gate_factors: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        _check(stages, growth, form, stem)
        gating = Gating(heads, squeeze_rate, gate_factor, form)
        # the baselines are what plain PyTorch makes of them
        self.recompute_activations = form == "dgc"
        width = 2 * growth[0]
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        blocks["init_conv"] = nn.Conv2d(3, width, 3, 1 if stem == "cifar" else 2, 1, bias=False)
        for i, (depth, g) in enumerate(zip(stages, growth, strict=True), start=1):
            blocks[f"denseblock_{i}"] = _block(depth, width, g, bottleneck, group_3x3, gating)
            width += depth * g
            if i < len(stages):
                blocks[f"transition_{i}"] = nn.AvgPool2d(2)
        self.features = nn.Sequential(blocks)
        self.bn_last = nn.BatchNorm2d(width)
        self.relu_last = nn.ReLU(inplace=True)
        self.pool_last = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, num_classes)
        initialise(self)
        own_shares(self, form, gate_factors)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        features_BCHW = self._features(x_BCHW)
        if self.recompute_activations:
            pooled_BC11 = norm_relu_pool(
                self.bn_last,
                self.relu_last,
                self.pool_last,
                features_BCHW,
                kernels=self.kernels,
                triton=self.triton,
            )
        else:
            pooled_BC11 = self.pool_last(self.relu_last(self.bn_last(features_BCHW)))
        logits_BN: Tensor = self.classifier(pooled_BC11.flatten(1))
        return logits_BN

    def _features(self, x_BCHW: Tensor) -> Tensor:
        # the baselines are what plain PyTorch makes of them; a hook expects the whole to be called
        if not self.recompute_activations or support.hooked(self.features):
            return cast("Tensor", self.features(x_BCHW))
        for part in self.features:
            if type(part) is nn.AvgPool2d:
                x_BCHW = window_means(part, x_BCHW, kernels=self.kernels)
            else:
                x_BCHW = part(x_BCHW)
        return x_BCHW


def _block(
    depth: int, width: int, growth: int, bottleneck: int, group_3x3: int, gating: Gating
) -> DenseBlock:
    layers = (
        (
            f"denselayer_{j + 1}",
            DenseLayer(width + j * growth, growth, bottleneck, group_3x3, gating),
        )
        for j in range(depth)
    )
    return DenseBlock(OrderedDict(layers))


def _check(stages: Sequence[int], growth: Sequence[int], form: str, stem: str) -> None:
    if len(stages) != len(growth) or not stages:
        raise ArgumentError(
            f"stages={list(stages)} and growth={list(growth)} must be of one length, at least 1"
        )
    if min(*stages, *growth) < 1:
        raise ArgumentError(
            f"stages={list(stages)} and growth={list(growth)} must be integers >= 1"
        )
    check_choice("form", form, Form)
    check_choice("stem", stem, Stem)
