"""Is training a DGC network cheaper than training its dense twin? Step time, saved activations, peak memory.

    python benchmarks/training.py [--networks densenet86 condensenet resnet18] [--progress 0.0 0.5 0.9] [--steps 5]

One run measures side by side, interleaved: the dense twin, the project (with the C++ kernels, and plain PyTorch alone),
and the masked formulation of the released code. Writes training.json and training.md into --out. Saved activations are
exact, and those of plain PyTorch carry over to a GPU: bytes of the distinct storages kept for backward that are neither
parameters nor buffers, for one sample.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dgc
from dgc.bench.memory import saved_bytes
from dgc.native import library

HERE = Path(__file__).parent
NETWORKS = {
    # name: (model, batch, image size, classes, limit of time from progress 3/4 on, limit of saved bytes)
    "densenet86": ("cifar10_dydensenet86_h4", 64, 32, 10, 0.8, 0.6),
    "condensenet": ("imagenet_dydensenet_h4", 8, 224, 1000, 0.8, 0.6),
    "resnet18": ("imagenet_dyresnet18_h4", 16, 224, 1000, 1.0, 0.8),
}
WAYS = ("dense", "dgc", "plain", "masked")
METHODS: dict[str, Any] = {"dense": "auto", "dgc": "auto", "plain": "plain", "masked": "masked"}
HEADER = """# Training: DGC against its dense twin

{cpu}, {threads} threads, torch {torch}, Python {python}, {date}; float32.
Time: forward + backward + update, median of n interleaved steps; ratio: median over neighbouring steps (range).
The dense twin is plain PyTorch (no activations made again). dgc: the project as it comes, here with the C++ kernels
({kernels}); plain: without them, which is what a GPU runs; masked: the formulation of the released code.
Saved: MB a sample kept for backward. Peak: resident MB of a process.

| network, batch | progress | way | n | s/step | time / dense | saved MB | saved / dense | peak MB | target |
|---|---|---|---|---|---|---|---|---|---|"""
EARLY_LIMIT = 1.2  # of time before progress 3/4


def build(model: str, way: str, progress: float) -> nn.Module:
    torch.manual_seed(0)
    net = dgc.create_model(model, form="dense" if way == "dense" else "dgc")
    dgc.set_progress(net, progress)
    dgc.set_method(net, METHODS[way])
    return net.train()


def loss_of(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(net(images), labels) + 1e-5 * dgc.gate_l1(net)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    """Seconds of forward, backward and update."""
    start = time.perf_counter()
    optimizer.zero_grad()
    loss_of(net, images, labels).backward()
    optimizer.step()
    return time.perf_counter() - start


def batch_of(network: str) -> tuple[Tensor, Tensor]:
    _, batch, size, classes, *_ = NETWORKS[network]
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, size, size, generator=generator)
    return images, torch.randint(0, classes, (batch,), generator=generator)


def measure(network: str, progress: float, steps: int, ways: tuple[str, ...]) -> dict[str, Any]:
    """One cell of the table: interleaved steps (one more to warm up), then what is saved."""
    images, labels = batch_of(network)
    nets = {way: build(NETWORKS[network][0], way, progress) for way in ways}
    sgd = {
        way: torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True) for way, net in nets.items()
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(steps + 1):
        for way, net in nets.items():
            taken = step(net, sgd[way], images, labels)
            if round_:
                seconds[way].append(taken)
    kept = {
        way: saved_bytes(net, lambda net=net: loss_of(net, images, labels)) / len(images) for way, net in nets.items()
    }
    return {"network": network, "progress": progress, "batch": len(images), "n": steps} | {
        way: row(seconds[way], seconds["dense"], kept[way], kept["dense"]) for way in ways
    }


def row(seconds: list[float], dense: list[float], kept: float, kept_dense: float) -> dict[str, Any]:
    """The ratio is the median of the ratios of neighbouring steps; its spread, their smallest and largest."""
    ratios = [ours / theirs for ours, theirs in zip(seconds, dense, strict=True)]
    return {
        "seconds_median": statistics.median(seconds),
        "seconds_all": seconds,
        "time_ratio": statistics.median(ratios),
        "time_ratio_range": [min(ratios), max(ratios)],
        "saved_mb_per_sample": kept / 1e6,
        "saved_ratio": kept / kept_dense,
    }


def peak_memory(network: str, progress: float, way: str) -> float:
    """Peak resident memory (MB) of a process of its own that makes two steps."""
    command = [sys.executable, __file__, "--peak", network, str(progress), way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(network: str, progress: float, way: str) -> None:
    images, labels = batch_of(network)
    net = build(NETWORKS[network][0], way, progress)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)
    for _ in range(2):
        step(net, optimizer, images, labels)
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return {
        "cpu": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "kernels": library.in_use(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def verdict(cell: dict[str, Any], way: str) -> str:
    time_limit, saved_limit = NETWORKS[cell["network"]][4:]
    limit = time_limit if cell["progress"] >= 0.75 else EARLY_LIMIT
    ours = cell[way]
    words = [("time", ours["time_ratio"], limit)] if way == "dgc" else []
    words.append(("saved", ours["saved_ratio"], saved_limit))
    return ", ".join(f"{name} {'met' if value <= most else 'MISSED'} (<= {most})" for name, value, most in words)


def table(report: dict[str, Any]) -> str:
    lines = [HEADER.format(**report["machine"])]
    for cell in report["cells"]:
        for way in WAYS:
            if way in cell:
                lines.append(line(cell, way))
    return "\n".join(lines) + "\n"


def line(cell: dict[str, Any], way: str) -> str:
    value = cell[way]
    low, high = value["time_ratio_range"]
    peak = f"{value['peak_mb']:.0f}" if "peak_mb" in value else "-"
    return (
        f"| {cell['network']}, {cell['batch']} | {cell['progress']} | {way} | {cell['n']} "
        f"| {value['seconds_median']:.3f} "
        f"| {value['time_ratio']:.2f} ({low:.2f}-{high:.2f}) | {value['saved_mb_per_sample']:.2f} "
        f"| {value['saved_ratio']:.2f} | {peak} | {verdict(cell, way) if way in ('dgc', 'plain') else ''} |"
    )


def merge(out: Path, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """New cells replace those of the same network and progress measured before on this machine."""
    path = out / "training.json"
    old = json.loads(path.read_text()) if path.exists() else {"machine": machine(), "cells": []}
    kept = [cell for cell in old["cells"] if old["machine"] == machine()]
    found = {(cell["network"], cell["progress"]): cell for cell in [*kept, *cells]}
    return {"machine": machine(), "cells": [found[key] for key in sorted(found)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--progress", nargs="+", type=float, default=[0.0, 0.5, 0.9])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--no-peak", action="store_true", help="leave out the peak memory (a process for each cell)")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        return print_peak(given.peak[0], float(given.peak[1]), given.peak[2])
    ways = tuple(way for way in WAYS if way in {"dense", *given.ways})
    cells = []
    for network in given.networks:
        for progress in given.progress:
            cell = measure(network, progress, given.steps, ways)
            for way in () if given.no_peak else ways:
                cell[way]["peak_mb"] = peak_memory(network, progress, way)
            cells.append(cell)
            print("\n".join(line(cell, way) for way in ways), flush=True)
            report = merge(given.out, cells)
            (given.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")
            (given.out / "training.md").write_text(table(report))
    return None


if __name__ == "__main__":
    main()
