"""Plan files beside ONNX Runtime and OpenVINO with the dense network: time to load, first image, the
others, memory. Every row is a process of its own; they take turns, so that a busy minute is shared.

    python benchmarks/plan_files.py [--seconds 3] [--rounds 3] [--out benchmarks/results/plan_files.json]

Weights are random: the bits are those of the module's own plan, which is checked first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import dgc
import dgc.runtime
from dgc.bench.machine import facts
from dgc.bench.networks import build
from dgc.bench.rows import BenchReport, BenchRow, read_report, write_report
from dgc.infer.onnx_file import save_onnx

SIZES = {"densenet86": 32, "resnet18": 224, "condensenet": 224}

# What each process runs; argv: file, batch, threads, seconds. Prints one line of JSON.
COMMON = """
import json, sys, resource
from time import perf_counter
file, batch, threads, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
import numpy as np
def tell(start, loaded, run, shape):
    one = np.zeros((1, *shape), np.float32)
    t = perf_counter(); run(one); first = perf_counter() - t
    x = np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)
    run(x); found = []
    end = perf_counter() + seconds
    while perf_counter() < end or len(found) < 5:
        t = perf_counter(); run(x); found.append((perf_counter() - t) / batch)
    pages = int(open("/proc/self/statm").read().split()[1])
    print(json.dumps({"load_ms": 1e3 * (loaded - start), "first_ms": 1e3 * first,
        "ms": 1e3 * sorted(found)[len(found) // 2], "n": len(found),
        "resident_mb": pages * resource.getpagesize() / 1e6}))
"""
PLAN = (
    COMMON
    + """
import dgc.runtime
start = perf_counter()
plan = dgc.runtime.load(file, threads=threads, chunk=batch)
tell(start, perf_counter(), plan, plan.shapes[0].image)
"""
)
ONNXRUNTIME = (
    COMMON
    + """
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = threads
start = perf_counter()
session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
loaded = perf_counter()
shape = session.get_inputs()[0].shape[1:]
tell(start, loaded, lambda x: session.run(None, {"images": x}), shape)
"""
)
OPENVINO = (
    COMMON
    + """
import openvino
core = openvino.Core()
hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32"}
start = perf_counter()
model = core.read_model(file)
shape = [int(d) for d in list(model.inputs[0].partial_shape)[1:] for d in [d.get_length()]]
model.reshape([batch, *shape])
compiled = core.compile_model(model, "CPU", hints)
request = compiled.create_infer_request()
loaded = perf_counter()
run = lambda x: request.infer([x if len(x) == batch else np.repeat(x, batch, 0)])
tell(start, loaded, run, shape)
"""
)


def measure(program: str, file: Path, batch: int, threads: int, seconds: float) -> dict[str, Any]:
    words = [sys.executable, "-c", program, str(file), str(batch), str(threads), str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def same_bits(net: nn.Module, file: Path, size: int) -> bool:
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    wanted = dgc.compile_for_inference(net)(x).numpy()
    return bool(np.array_equal(dgc.runtime.load(file)(x.numpy()), wanted))


def rows_of(name: str, folder: Path, given: argparse.Namespace) -> list[BenchRow]:
    torch.manual_seed(0)
    size = SIZES[name]
    net, dense = build(name, "dgc"), build(name, "dense")
    plan = dgc.save_plan(net, torch.zeros(1, 3, size, size), folder / f"{name}.dgc")
    onnx = save_onnx(dense, torch.zeros(1, 3, size, size), folder / f"{name}-dense.onnx")
    equal = same_bits(net, plan, size)
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "plan file (DGC)": lambda: measure(PLAN, plan, given.batch, given.threads, given.seconds),
        "ONNX Runtime (dense)": lambda: measure(
            ONNXRUNTIME, onnx, given.batch, given.threads, given.seconds
        ),
        "OpenVINO (dense)": lambda: measure(
            OPENVINO, onnx, given.batch, given.threads, given.seconds
        ),
    }
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way, call in ways.items():
            found[way].append(call())
    return [_row(name, way, rows, given, equal) for way, rows in found.items()]


def _row(
    name: str, way: str, rows: list[dict[str, Any]], given: argparse.Namespace, equal: bool
) -> BenchRow:
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    each = [row["ms"] for row in rows]
    more = {key: middle[key] for key in ("load_ms", "first_ms", "resident_mb")}
    own = way.startswith("plan file")
    return BenchRow(
        "plan_files", way, name, "dgc" if own else "dense", way.split(" (")[0], threads=given.threads,
        batch=given.batch, n=len(rows), median=middle["ms"], low=min(each), high=max(each),
        spread="range of processes", more=more | ({"same_bits": equal} if own else {}),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--network", action="append")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    report = BenchReport("plan_files")
    if given.out and given.out.exists():
        report = read_report(given.out, "plan_files")
    key = report.add_machine(facts())
    with tempfile.TemporaryDirectory() as folder:
        for name in given.network or SIZES:
            rows = [
                replace(row, machine=key, run=f"{name}-{given.batch}-{given.threads}")
                for row in rows_of(name, Path(folder), given)
            ]
            report.add_run(rows)
            for row in rows:
                figures = ", ".join(f"{k} {v:.1f}" for k, v in row.more.items())
                print(f"{name} {row.name}: {row.median:.2f} ms/image, {figures}", flush=True)
    if given.out:
        write_report(given.out, report)


if __name__ == "__main__":
    main()
