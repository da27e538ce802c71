"""Are two checkouts equally fast? Steps of the same network in turn, each checkout in a process of its own:

    python -m benchmarks.old_new OLD NEW [--network N] [--mode training|inference] [--pairs 20] [--threads 1]

OLD and NEW are folders with built kernels (`pip install -e .`, or the library copied beside its loader). A line says the
median of the ratios of neighbouring steps, NEW over OLD, with the 95 % interval of that median (order statistics), and
the same of OLD over a second process of OLD: how far two measurements of one program lie apart. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import torch

# preset, images of a step in training, their side, classes
NETWORKS = {
    "densenet86": ("cifar10_dydensenet86_h4", 64, 32, 10),
    "condensenet": ("imagenet_dydensenet_h4", 8, 224, 1000),
    "resnet18": ("imagenet_dyresnet18_h4", 16, 224, 1000),
}
# What both checkouts run: public names alone, which are older than either.
STEP = """
import json, sys, time
checkout, packages, mode, preset, batch, side, classes, threads = sys.argv[1:]
sys.path[:0] = [checkout, packages]
import torch, torch.nn.functional as F
import dgc
assert dgc.__file__.startswith(checkout + "/"), dgc.__file__
torch.set_num_threads(int(threads)); torch.manual_seed(0)
net = dgc.create_model(preset).train()
images = torch.randn(int(batch), 3, int(side), int(side))
labels = torch.randint(0, int(classes), (int(batch),))
dgc.set_progress(net, 0.9)
if mode == "training":
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)
    def step():
        optimizer.zero_grad()
        (F.cross_entropy(net(images), labels) + 1e-5 * dgc.gate_l1(net)).backward()
        optimizer.step()
else:
    with torch.no_grad():
        net(images)
    plan = dgc.compile_for_inference(net.eval())
    def step():
        with torch.inference_mode():
            plan(images)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        step()
    print(json.dumps(time.perf_counter() - start), flush=True)
"""


class Checkout:
    """One of the processes; `seconds` lets it make steps and waits for it."""

    def __init__(self, folder: Path, network: str, mode: str, threads: int) -> None:
        preset, batch, side, classes = NETWORKS[network]
        packages = Path(torch.__file__).parents[1]
        count = batch if mode == "training" else 1
        words = [folder.resolve(), packages, mode, preset, count, side, classes, threads]
        # -S: an installed dgc (editable, too) would come before the folder
        command = [sys.executable, "-S", "-c", STEP, *map(str, words)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, steps: int) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def middle(ratios: list[float]) -> str:
    """Their median, and between which of them it lies with 95 %."""
    ordered, n = sorted(ratios), len(ratios)
    reach = math.floor((n - 1.96 * math.sqrt(n)) / 2)
    low, high = ordered[max(0, reach)], ordered[min(n - 1, n - 1 - reach)]
    return f"{statistics.median(ordered):.3f} ({low:.3f} to {high:.3f})"


def measure(old: Path, new: Path, network: str, given: argparse.Namespace) -> str:
    folders = {"old": old, "new": new, "again": old}
    three = {
        name: Checkout(folder, network, given.mode, given.threads)
        for name, folder in folders.items()
    }
    for one in three.values():
        one.seconds(2)  # what is made at the first step
    steps = max(1, round(0.2 / three["old"].seconds(1)))
    rows: dict[str, list[float]] = {name: [] for name in three}
    for number in range(given.pairs):
        # each is the first as often as the last
        for name in sorted(three, reverse=bool(number % 2)):
            rows[name].append(three[name].seconds(steps) / steps)
    for one in three.values():
        one.close()
    over = [
        middle([a / b for a, b in zip(rows[name], rows["old"], strict=True)])
        for name in ("new", "again")
    ]
    return f"| {network} | {statistics.median(rows['old']) * 1e3:.1f} | {over[0]} | {over[1]} | {given.pairs} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--network", choices=list(NETWORKS), action="append")
    parser.add_argument("--mode", choices=["training", "inference"], default="training")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(
        "| network | old, ms a step | new / old | old again / old | pairs |\n|---|--:|--:|--:|--:|"
    )
    for network in given.network or NETWORKS:
        print(measure(given.old, given.new, network, given), flush=True)


if __name__ == "__main__":
    main()
