"""Plan files from which the fuzzer starts: small, and together with every kind of operation.

python tests/native/fuzz_seeds.py FOLDER
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import dgc
from dgc.infer.plan_file import Programs, image_of
from dgc.runtime.plan import Preprocessing


class Sum(nn.Module):
    """A residual sum that is no part of a convolution, a concatenation, and pooling by windows that
    are not alike.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(2, 4, 1)
        self.last = nn.Conv2d(8, 3, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x), self.second(x)
        both = torch.cat([torch.relu(a) + b, b], 1)
        return nn.functional.adaptive_avg_pool2d(self.last(both), (2, 3))


class Foreign(nn.Module):
    """What people's networks have beside convolutions: depthwise kernels, squeeze and excitation,
    shuffled channels, upsampling, activations, vectors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.coarse = nn.Conv2d(8, 8, 5, 2, 2, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.along = nn.Conv1d(1, 1, 3, padding=1)
        self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8 * 24, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.depth(nn.functional.hardswish(self.first(x))))
        small = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        x = x * torch.sigmoid(small)
        near = torch.sigmoid(self.along(x.mean((2, 3))[:, None]))[:, 0]
        x = x * near[:, :, None, None]
        x = nn.functional.channel_shuffle(x, 2)
        everywhere = x.mean((2, 3), keepdim=True)
        x = x + nn.functional.interpolate(everywhere, size=(8, 12), mode="bilinear")
        half = nn.functional.relu6(self.coarse(x))
        x = x + nn.functional.interpolate(half, scale_factor=2, mode="bilinear")
        x = nn.functional.avg_pool2d(nn.functional.gelu(x), 2, 2)
        return torch.softmax(self.last(x.flatten(1)), 1)


def networks() -> list[tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    heads = {"heads": 2, "gate_factor": 0.5}
    tiles = nn.Sequential(
        dgc.DynamicGroupConv2d(4, 16, 3, padding=1, **heads),
        nn.AvgPool2d(2),
        dgc.DynamicGroupConv2d(16, 32, 3, padding=1, **heads),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 3),
    )
    panel = nn.Sequential(
        nn.BatchNorm2d(4),
        nn.ReLU(),
        dgc.DynamicGroupConv2d(4, 6, 5, padding=2, **heads),
        nn.MaxPool2d(3, 2, 1),
        dgc.DynamicGroupConv2d(6, 4, 1, **heads),
    )
    found = [(tiles, torch.zeros(1, 4, 8, 8)), (panel, torch.zeros(1, 4, 18, 18))]
    found.append((Sum(), torch.zeros(1, 2, 6, 7)))
    found.append((nn.Sequential(nn.Conv2d(1, 1, 1)), torch.zeros(1, 1, 3, 3)))
    found.append((Foreign(), torch.zeros(1, 2, 8, 12)))
    for net, _ in found:
        dgc.set_progress(net, 1.0)
        net.eval()
    return found


def write(folder: Path) -> list[Path]:
    how = Preprocessing(10, 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    files = []
    for i, (net, x) in enumerate(networks()):
        more = {"classes": ["a", "bé", ""], "how": how, "origin": {"run": "x"}} if i % 2 else {}
        # Not by `save_plan`, which would refuse what contradicts the network.
        data = Programs(net, [image_of(x)]).file_bytes(**more)
        files.append(folder / f"{i}.dgc")
        data.tofile(files[-1])
        if i != 3:
            files.append(dgc.save_plan(net, x, folder / f"{i}-int8.dgc", precision="int8"))
    return files


if __name__ == "__main__":
    write(Path(sys.argv[1]))
