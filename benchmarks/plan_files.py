"""Plan files beside ONNX Runtime and OpenVINO with the dense network: time to load, first image, the
others, memory. Every row is a process of its own; they take turns, so that a busy minute is shared.

    python -m benchmarks.plan_files [--seconds 3] [--rounds 3] [--plans 8]
        [--out benchmarks/results/plan_files.json]

Then so many threads at once, a plan each, beside as many processes (benchmarks/plan_threads.py; 0:
not). Engines that are not installed (`pip install onnx onnxruntime openvino`) are named and left
out. In seconds, to see that it runs: --network demo --seconds 0.2 --rounds 1.

Weights are random. First each file is run by NumPy and by examples/plan.c and compared with the
module's own plan, bit for bit. With --out the table is written beside the figures, as Markdown.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dgc
import dgc.runtime
from benchmarks import plan_threads
from benchmarks.page import add_out
from dgc.bench.machine import facts
from dgc.bench.rows import BenchReport, BenchRow, read_report, write_report
from dgc.infer.onnx_file import save_onnx
from dgc.models import create_model
from dgc.run.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
# what the recipe of the demo says of its network
DEMO = {"stem": "cifar", "num_classes": 10, "heads": 4, "squeeze_rate": 16, "gate_factor": 0.25,
        "stages": (2, 2, 2), "growth": (8, 16, 32), "bottleneck": 4, "group_3x3": 4}  # fmt: skip
SIZES = {
    "imagenet_dydensenet_h4": 224,
    "imagenet_dyresnet18_h4": 224,
    "cifar10_dydensenet86_h4": 32,
    "cifar100_dydensenet86_h4": 32,
    "demo": 32,
    "resnet50 (converted)": 224,
}


def made(name: str, form: str) -> nn.Module:
    if name == "demo":
        return create_model("dydensenet", form=form, **DEMO)
    if name != "resnet50 (converted)":
        return create_model(name, form=form)
    import torchvision

    net: nn.Module = torchvision.models.resnet50()
    if form == "dgc":
        dgc.convert(net, torch.randn(1, 3, 224, 224), heads=4, gate_factor=0.5)
    return net


def build(name: str, form: str) -> nn.Module:
    """In evaluation mode: BatchNorm statistics from a few passes over noise, final pruning."""
    torch.manual_seed(0)
    net, side = made(name, form).train(), min(SIZES[name], 112)
    if form == "dgc":
        dgc.set_progress(net, 0.999)
    with torch.no_grad():
        for _ in range(8):
            net(torch.randn(8, 3, side, side))
    return net.eval()


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


ENGINES = {
    "ONNX Runtime (dense)": ("onnxruntime", ONNXRUNTIME),
    "OpenVINO (dense)": ("openvino", OPENVINO),
}


def measure(program: str, file: Path, batch: int, threads: int, seconds: float) -> dict[str, Any]:
    words = [sys.executable, "-c", program, str(file), str(batch), str(threads), str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def same_bits(net: nn.Module, file: Path, size: int) -> dict[str, bool]:
    """Whether the logits of three images are those of the module's plan, to the last bit."""
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    wanted = dgc.compile_for_inference(net)(x).numpy()
    by_numpy = dgc.runtime.load(file)(x.numpy())
    return {
        "same_bits_numpy": by_numpy.tobytes() == wanted.tobytes(),
        "same_bits_c": by_c(file, x.numpy()) == wanted.tobytes(),
    }


def by_c(file: Path, images: Any) -> bytes:
    """The answers of examples/plan.c."""
    flags = subprocess.check_output([sys.executable, "-m", "dgc.runtime", "--cflags"], text=True)
    compiler = shutil.which("cc") or shutil.which("gcc") or "clang"
    with tempfile.TemporaryDirectory() as scratch:
        program, taken, out = (Path(scratch, name) for name in ("plan", "images", "logits"))
        words = [compiler, str(ROOT / "examples/plan.c"), *shlex.split(flags), "-o", str(program)]
        subprocess.run(words, check=True)
        taken.write_bytes(images.tobytes())
        subprocess.run([program, file, taken, out, "2"], check=True)
        return out.read_bytes()


def rows_of(name: str, folder: Path, given: argparse.Namespace) -> list[BenchRow]:
    size, label = SIZES[name], name.split()[0]
    net, dense = build(name, "dgc"), build(name, "dense")
    example = torch.zeros(1, 3, size, size)
    plan = dgc.save_plan(net, example, folder / f"{label}.dgc")
    plan8 = dgc.save_plan(net, example, folder / f"{label}-int8.dgc", precision="int8")
    ways: dict[str, tuple[str, Path]] = {
        "plan file (DGC)": (PLAN, plan),
        "plan file, 8 bits (DGC)": (PLAN, plan8),
    }
    if engines := [way for way, (package, _) in ENGINES.items() if find_spec(package)]:
        onnx = save_onnx(dense, example, folder / f"{label}-dense.onnx")
        ways |= {way: (ENGINES[way][1], onnx) for way in engines}
    more: dict[str, dict[str, object]] = {
        way: {"file_mb": file.stat().st_size / 1e6} for way, (_, file) in ways.items()
    }
    more["plan file (DGC)"] |= same_bits(net, plan, size)
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way, (program, file) in ways.items():
            found[way].append(measure(program, file, given.batch, given.threads, given.seconds))
    return [_row(name, way, rows, given, more[way]) for way, rows in found.items()]


def _row(
    name: str,
    way: str,
    rows: list[dict[str, Any]],
    given: argparse.Namespace,
    known: dict[str, object],
) -> BenchRow:
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    each = [row["ms"] for row in rows]
    more = {key: middle[key] for key in ("load_ms", "first_ms", "resident_mb")}
    own = way.startswith("plan file")
    return BenchRow(
        "plan_files", way, name, "dgc" if own else "dense", way.split(" (")[0], threads=given.threads,
        batch=given.batch, n=len(rows), median=middle["ms"], low=min(each), high=max(each),
        spread="range of processes", precision="int8" if "8 bits" in way else "float32",
        more=more | known,
    )  # fmt: skip


def markdown(report: BenchReport) -> str:
    m = report.machine
    packages = ", ".join(f"{k} {v}" for k, v in (m.get("packages") or {}).items() if v)
    lines = [
        "# Plan files beside ONNX Runtime and OpenVINO with the dense network",
        "",
        f"`python -m benchmarks.plan_files`; {m.get('cpu')}, kernels {m.get('isa')}, Python"
        f" {m.get('python')}, {packages}; {m.get('date')}.",
        "",
        "Each row is the median of n processes, which took turns with the others of its network:"
        " load (the file opened, checked or compiled), the first image after that, steady time for"
        " an image (range of the processes), resident memory of the process at the end (Python and"
        " libraries included). Float32 but for the rows in 8 bits; random weights. Same bits: the"
        " file through NumPy and through C against the plan of the module, three images.",
        "",
        "| network | batch, threads | | load, ms | first, ms | steady, ms/image | resident, MB"
        " | file, MB | same bits NumPy, C | n |",
        "|---|---|---|--:|--:|--:|--:|--:|---|--:|",
    ]
    together = [r for r in report.rows if plan_threads.is_one(r)]
    for r in report.rows:
        if r in together or r.median is None or r.low is None or r.high is None:
            continue
        e = r.more
        bits = [e[k] for k in ("same_bits_numpy", "same_bits_c") if k in e]
        lines.append(
            f"| {r.network} | {r.batch}, {r.threads} | {r.name} | {e['load_ms']:.1f}"
            f" | {e['first_ms']:.1f} | {r.median:.2f} ({r.low:.2f} to {r.high:.2f})"
            f" | {e['resident_mb']:.0f} | {e['file_mb']:.1f}"
            f" | {', '.join('yes' if b else 'NO' for b in bits)} | {r.n} |"
        )
    return "\n".join([*lines, *plan_threads.markdown(together)]) + "\n"


def tell(rows: list[BenchRow]) -> None:
    for row in rows:
        figures = ", ".join(f"{k} {v:.6g}" for k, v in row.more.items())
        print(f"{row.network} {row.name}: {row.median:.2f} ms/image, {figures}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plans", type=int, default=8)
    parser.add_argument("--network", action="append")
    add_out(parser)
    given = parser.parse_args()
    for way, (package, _) in ENGINES.items():
        if not find_spec(package):
            print(f"not measured: {way}: {package} is not installed", flush=True)
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
            tell(rows)
            if given.plans:
                file = Path(folder, f"{name.split()[0]}.dgc")
                rows = [
                    replace(row, machine=key, run=f"{name}-{given.plans} plans")
                    for row in plan_threads.rows_of(
                        name, file, given.plans, given.rounds, given.seconds
                    )
                ]
                report.add_run(rows)
                tell(rows)
    if given.out:
        write_report(given.out, report)
        atomic_write(given.out.with_suffix(".md"), markdown(report).encode())


if __name__ == "__main__":
    main()
