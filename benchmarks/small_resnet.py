"""torchvision's resnet18 for images of 32 pixels: a first convolution 3x3, and no pooling after it.

The network of docs/studies/cifar10_jpeg_resnet18, whose recipe names it as
`python:benchmarks.small_resnet:resnet18`.
"""

from __future__ import annotations

from torch import nn
from torchvision.models import ResNet
from torchvision.models import resnet18 as whole_resnet18


def resnet18(num_classes: int, stride: int = 1) -> ResNet:
    """`stride`: of the first convolution; 2 takes a quarter of the MACs of 1."""
    model = whole_resnet18(weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
