"""Plan files from which the fuzzer starts: small, and together with every kind of operation.

python tests/native/fuzz_seeds.py FOLDER
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import dgc
from dgc.runtime.plan import Preprocessing


class Sum(nn.Module):
    """A residual sum that is no part of a convolution, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(2, 4, 1)
        self.last = nn.Conv2d(8, 3, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x), self.second(x)
        both = torch.cat([torch.relu(a) + b, b], 1)
        last: Tensor = self.last(both)
        return last


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
    for net, _ in found:
        dgc.set_progress(net, 1.0)
        net.eval()
    return found


def write(folder: Path) -> list[Path]:
    how = Preprocessing(10, 8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    files = []
    for i, (net, x) in enumerate(networks()):
        more = (
            {"classes": ["a", "bé", ""], "preprocessing": how, "origin": {"run": "x"}}
            if i % 2
            else {}
        )
        files.append(dgc.save_plan(net, x, folder / f"{i}.dgc", **more))
        if i < 3:
            files.append(dgc.save_plan(net, x, folder / f"{i}-int8.dgc", precision="int8"))
    return files


if __name__ == "__main__":
    write(Path(sys.argv[1]))
