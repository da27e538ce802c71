"""A network that is not ours (torchvision, timm): dense in every engine against the same network
converted, one image, side by side in milliseconds and MACs.

Random weights; BatchNorm takes the statistics of some noise first, so that no number fades into
denormal ones. The converted network is at the end of its schedule.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dgc.bench.contenders import onnxruntime_call, torch_call
from dgc.bench.named import contender
from dgc.bench.precisions import onnx_of, openvino_call
from dgc.bench.rows import BenchRow
from dgc.bench.timing import interleaved
from dgc.conversion import convert
from dgc.conversion.report import ConversionReport
from dgc.hub import foreign
from dgc.infer import compile_for_inference
from dgc.layers import set_progress
from dgc.layers.macs import count

BENCHMARK, SIZE, CLASSES = "foreign", 224, 1000
ENGINES = ("dense_eager", "dense_onnxruntime", "dense_openvino")
OWN = "dense_native"  # the dense network in our engine: told, and not what ours has to beat
# how much faster than the best dense engine a converted network has to be, by gate_factor
BARS: dict[str, dict[float, float]] = {
    "torchvision/resnet50": {0.25: 1.6, 0.5: 1.15},
    "torchvision/wide_resnet50_2": {0.25: 1.6, 0.5: 1.15},
    "timm/seresnet50": {0.25: 1.4, 0.5: 1.0},
    "torchvision/regnet_y_400mf": {0.25: 1.1, 0.5: 1.0},
    "torchvision/mobilenet_v2": {0.25: 1.1, 0.5: 1.0},
    "torchvision/mobilenet_v3_large": {0.25: 1.1, 0.5: 1.0},
    "torchvision/efficientnet_b0": {0.25: 1.1, 0.5: 1.0},
    "torchvision/densenet121": {0.25: 1.4, 0.5: 1.0},
}


@dataclass(frozen=True)
class ConvertedNetwork:
    model: nn.Module
    report: ConversionReport
    macs: int  # as executed at the end of the schedule


@dataclass(frozen=True)
class Case:
    """One network, dense and converted at each gate_factor."""

    name: str
    x: Tensor
    dense: nn.Module
    dense_macs: int
    converted: dict[float, ConvertedNetwork]


@torch.no_grad()
def case(name: str, gate_factors: Sequence[float], heads: int = 4, batch: int = 1) -> Case:
    """Raises UsageError where there is no such network or nothing in it can be converted."""
    torch.manual_seed(0)
    dense = foreign.build(name, CLASSES)
    for module in dense.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # an average of all that it sees
            module.reset_running_stats()
    dense.train()(torch.randn(4, 3, SIZE, SIZE))
    dense.eval()
    x = torch.randn(batch, 3, SIZE, SIZE)
    found = {}
    for factor in gate_factors:
        model = copy.deepcopy(dense)
        with torch.enable_grad():
            report = convert(model, x[:1], heads=heads, gate_factor=factor)
        set_progress(model, 1.0)
        found[factor] = ConvertedNetwork(model.eval(), report, count(model, SIZE).executed)
    return Case(name, x, dense, count(dense, SIZE).executed, found)


def converted_name(factor: float) -> str:
    return f"native_{factor:g}"


def dense_calls(dense: nn.Module, x: Tensor, threads: int) -> dict[str, Callable[[], object]]:
    """A dense network in PyTorch and in the engines of others that are installed."""
    found = {"dense_eager": torch_call(dense, x)}
    others = {"dense_onnxruntime": onnxruntime_call, "dense_openvino": openvino_call}
    # what they read is written with the package onnx
    wanted = [n for n in ENGINES if n in others and _installed("onnx", n.removeprefix("dense_"))]
    # Exported once for all: an export takes longer than what it is for.
    onnx = onnx_of(dense, x) if wanted else b""
    return found | {name: others[name](onnx, x, threads) for name in wanted}


def calls(made: Case, threads: int) -> dict[str, Callable[[], object]]:
    """What takes turns: engines that are installed, the dense network in ours, the converted."""
    found = dense_calls(made.dense, made.x, threads)
    found[OWN] = torch_call(compile_for_inference(made.dense), made.x)
    for factor, one in made.converted.items():
        found[converted_name(factor)] = torch_call(compile_for_inference(one.model), made.x)
    return found


def _installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def measure(made: Case, threads: int, budget_s: float, *, machine: str, run: str) -> list[BenchRow]:
    """A row for each contender; the converted ones against the best dense engine of this run."""
    torch.set_num_threads(threads)
    turns = calls(made, threads)
    samples = interleaved(turns, len(made.x), budget_s)
    # Against whatever was fastest here: an engine that somebody
    # else would take must not be left out because it is another's.
    best = min((n for n in ENGINES if n in samples), key=lambda n: samples[n].median)
    rows = []
    for name, sample in samples.items():
        row = BenchRow(
            BENCHMARK, network=made.name, threads=threads, batch=len(made.x), machine=machine,
            run=run, n=sample.n, median=sample.median, low=sample.low, high=sample.high,
            ratio=sample.median / samples[best].median, ratio_to=best, **contender(name),
        )  # fmt: skip
        rows.append(_own(row, made) if name not in ENGINES else row)
    missing = [n for n in ENGINES if n not in samples]
    return rows + [
        BenchRow(
            BENCHMARK, network=made.name, threads=threads, batch=len(made.x), machine=machine,
            run=run, why_not="not installed (pip install 'dgcctl[bench]')", **contender(name),
        )
        for name in missing
    ]  # fmt: skip


def _own(row: BenchRow, made: Case) -> BenchRow:
    if row.name == OWN:
        more = {"macs": made.dense_macs}
        return replace(row, variant="dense", engine="native", more=more)
    factor = float(row.name.removeprefix("native_"))
    bar = BARS.get(made.name, {}).get(factor)
    return replace(
        row, variant="dgc", engine="native", bar=bar,
        passed=None if bar is None or row.ratio is None else row.ratio * bar <= 1.0,
        more={"macs": made.converted[factor].macs, "gate_factor": factor},
    )  # fmt: skip
