"""Training and inference on a GPU, side by side: the dense network and DGC, each as it comes, in
channels_last, compiled and as a CUDA graph.

    python -m dgc.bench.gpu [--network NAME] [--batch N] [--precision P] [--seconds S]
        [--out FILE.json]

Needs torch and numpy alone. Each row is written as soon as it is there; after `--seconds` nothing
new is begun. A step is forward, loss, backward and SGD's update on one batch of noise, timed by
events of the device. "launches" counts kernels of one step by the profiler; a graph is one launch
for the host, and its kernels are counted all the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

import dgc
from dgc.talk import put, run_program

NETWORKS: dict[str, tuple[str, int, int]] = {  # preset, size of an image, classes
    "densenet86": ("cifar10_dydensenet86_h4", 32, 10),
    "condensenet": ("imagenet_dydensenet_h4", 224, 1000),
    "resnet18": ("imagenet_dyresnet18_h4", 224, 1000),
}
PRECISIONS = ("fp32", "tf32", "bf16")
WARM, STEPS = 3, 10


class Way(NamedTuple):
    form: str
    backend: str = "auto"
    channels_last: bool = False
    graph: bool = False
    compiled: bool = False


WAYS = {
    "dense": Way("dense"),
    "dense_channels_last": Way("dense", channels_last=True),
    "dense_graph": Way("dense", channels_last=True, graph=True),
    "dense_compiled": Way("dense", channels_last=True, compiled=True),
    "dgc": Way("dgc"),
    "dgc_masked": Way("dgc", "masked"),
    "dgc_graph": Way("dgc", graph=True),
    "triton": Way("dgc", "triton"),
    "triton_graph": Way("dgc", "triton", graph=True),
    "dgc_compiled": Way("dgc", compiled=True),
}


class Cell(NamedTuple):
    network: str
    batch: int
    precision: str
    mode: str  # "train" or "infer"
    progress: float
    way: str


class GpuTrainer:
    """A network on one batch of noise, and its optimizer, on `device`."""

    def __init__(self, cell: Cell, device: torch.device) -> None:
        preset, size, classes = NETWORKS[cell.network]
        self.cell, self.way, self.device = cell, WAYS[cell.way], device
        order = torch.channels_last if self.way.channels_last else torch.contiguous_format
        # Everything is drawn on the host and moved: a device's own generator gives other numbers.
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(cell.batch, 3, size, size, generator=generator)
        self.images = images.to(device).to(memory_format=order)
        self.labels = torch.randint(0, classes, (cell.batch,), generator=generator).to(device)
        torch.manual_seed(0)
        net = dgc.create_model(preset, form=self.way.form).train().to(device)
        self.net: nn.Module = net.to(memory_format=order)
        dgc.set_backend(self.net, self.way.backend)  # type: ignore[arg-type]
        dgc.set_progress(self.net, cell.progress)
        if cell.mode == "infer":
            self._statistics()
            self.net.eval()
        self.forward = torch.compile(self.net) if self.way.compiled else self.net
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True, fused=True
        )
        self.step: Callable[[], None] = self._train if cell.mode == "train" else self._infer
        if self.way.graph:
            self.step = self._captured()

    def _statistics(self) -> None:
        """A few batches for BatchNorm: without them the activations of a fresh network overflow."""
        with torch.no_grad():
            for _ in range(3):
                self.net(self.images[:64])

    def _precision(self) -> AbstractContextManager[Any]:
        if self.cell.precision != "bf16":
            return nullcontext()
        # without the cache of casts: a graph may not hold tensors that live outside of it
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not self.way.graph)

    def _train(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        with self._precision():
            logits = self.forward(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        if self.way.form == "dgc":
            loss = loss + 1e-5 * dgc.gate_l1(self.net)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _infer(self) -> None:
        with torch.no_grad(), self._precision():
            self.forward(self.images)

    def _captured(self) -> Callable[[], None]:
        plain = self.step
        # As PyTorch asks: some rounds on another stream first, so that what is made at first use
        # (workspaces, the optimizer's state) is there before the capture.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM):
                plain()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            plain()
        return graph.replay


def milliseconds(step: Callable[[], None], device: torch.device, count: int) -> list[float]:
    """Of each of `count` steps; several in flight, as in a training."""
    if device.type != "cuda":
        # On the CPU for the tests alone.
        times = []
        for _ in range(count):
            start = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - start))
        return times
    # Events, for the host runs ahead: its clock would time how fast launches are queued.
    marks = [
        torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        for _ in range(count + 1)
    ]
    torch.cuda.synchronize()
    marks[0].record()
    for mark in marks[1:]:
        step()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) for a, b in itertools.pairwise(marks)]


def told(times: list[float]) -> dict[str, float]:
    """What a row says of milliseconds."""
    least, most = min(times), max(times)
    return {
        "ms": round(statistics.median(times), 3),
        "least": round(least, 3),
        "most": round(most, 3),
        "n": len(times),
    }


def launches(step: Callable[[], None], device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
        step()
        torch.cuda.synchronize()
    kernels = (e for e in found.key_averages() if str(e.device_type).endswith("CUDA"))
    return sum(int(event.count) for event in kernels)


def measure(cell: Cell, device: torch.device) -> dict[str, Any]:
    """One row; an error is its text."""
    # Both switches: products in cuBLAS and convolutions in cuDNN ask their own.
    torch.backends.cuda.matmul.allow_tf32 = cell.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = cell.precision == "tf32"
    began = time.perf_counter()
    try:
        row = _row(cell, device)
        return {**cell._asdict(), **row, "seconds": round(time.perf_counter() - began, 1)}
    except Exception as error:  # noqa: BLE001  a row that fails is told, and the next one measured
        return {**cell._asdict(), "error": f"{type(error).__name__}: {str(error)[:300]}"}
    finally:
        if device.type == "cuda":
            if WAYS[cell.way].compiled:
                # Else compiled networks of earlier rows would fill the memory.
                torch._dynamo.reset()
            torch.cuda.empty_cache()


def _row(cell: Cell, device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = GpuTrainer(cell, device)
    for _ in range(WARM):
        trainer.step()
    timed = told(milliseconds(trainer.step, device, STEPS))
    peak = torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None
    return {
        **timed,
        "peak_mb": None if peak is None else round(peak),
        "launches": launches(trainer.step, device),
    }


def cells(networks: list[str], batches: list[int], precisions: list[str]) -> Iterator[Cell]:
    """The most telling first: time may run out."""
    shapes = [(n, b, p) for p in precisions for b in batches for n in networks]
    first = ("dense", "dense_channels_last", "dgc")
    for ways in (first, ("dense_graph", "dgc_graph", "dgc_masked")):
        for network, batch, precision in shapes:
            for way in ways:
                yield Cell(network, batch, precision, "train", 0.9, way)
    for network, precision in ((n, p) for p in precisions for n in networks):
        for batch in (1, 256):
            for way in ("dense", "dense_graph", "dgc", "dgc_graph"):
                yield Cell(network, batch, precision, "infer", 1.0, way)
    for network in networks:
        for way in ("dense_compiled", "dgc_compiled"):
            yield Cell(network, batches[0], precisions[-1], "train", 0.9, way)


def machine(device: torch.device) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,  # type: ignore[no-untyped-call]
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def write_rows(
    rows: Iterator[dict[str, Any]], device: torch.device, seconds: float, out: Path
) -> None:
    """Measure, print and save row after row; after `seconds` nothing new is begun."""
    began, done = time.perf_counter(), []
    while time.perf_counter() - began <= seconds and (row := next(rows, None)) is not None:
        done.append(row)
        put(json.dumps(row))
        # The form that reports had before dgc.bench.rows, which needs orjson: a rented GPU machine
        # may have torch and numpy alone. dgc.bench.older reads it.
        out.write_text(json.dumps({"machine": machine(device), "rows": done}, indent=1))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.bench.gpu", description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    a = parser.parse_args(argv)
    device = torch.device(a.device)
    networks, precisions = a.network or list(NETWORKS), a.precision or list(PRECISIONS)
    planned = cells(networks, a.batch or [64, 256], precisions)
    write_rows((measure(cell, device) for cell in planned), device, a.seconds, a.out)
    return 0


if __name__ == "__main__":
    run_program(main)
