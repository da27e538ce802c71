"""The trainer's own step on a GPU: as it runs, and replayed as a CUDA graph
(train.compile: reduce-overhead), of the dense network and of DGC.

    python -m dgc.bench.gpu_steps [--network NAME] [--batch N] [--precision P] [--seconds S]
        [--out FILE.json]

Besides forward, loss, backward and update (dgc.bench.gpu) a step holds what the trainer does in
each: the schedule, the guard, the row of metrics; deterministic operations alone, as recipes ask
by default. The batch is noise that lies on the device; progress is 0.9. Each row is written as
soon as it is there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

import dgc
from dgc.bench.gpu import NETWORKS, STEPS, WARM, milliseconds, told, write_rows
from dgc.recipe.schema import OptimSection
from dgc.talk import run_program
from dgc.train.optimizers import make_optimizer
from dgc.train.ranks import Ranks
from dgc.train.seeding import set_switches
from dgc.train.step import Updater
from dgc.train.step_graph import WARM_UP, GraphUpdater

PROGRESS = 0.9
PRECISIONS = {"fp32": ("off", False), "tf32": ("off", True), "bf16": ("bf16", False)}


class StepWay(NamedTuple):
    form: str
    backend: str = "auto"
    memory_format: torch.memory_format = torch.contiguous_format


STEP_WAYS = {
    "dense": StepWay("dense"),
    "dense_channels_last": StepWay("dense", memory_format=torch.channels_last),
    "dgc": StepWay("dgc"),
    "triton": StepWay("dgc", "triton"),
}


class StepCell(NamedTuple):
    network: str
    batch: int
    precision: str
    way: str
    graph: bool


def stepper(cell: StepCell, device: torch.device) -> Callable[[], None]:
    """One training step of a cell, to be called again and again."""
    preset, size, classes = NETWORKS[cell.network]
    way, (amp, tf32) = STEP_WAYS[cell.way], PRECISIONS[cell.precision]
    set_switches(deterministic=True, threads=None, tf32=tf32)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(cell.batch, 3, size, size, generator=generator).to(device)
    labels = torch.randint(0, classes, (cell.batch,), generator=generator).to(device)
    torch.manual_seed(0)
    net = dgc.create_model(preset, form=way.form).train().to(device)
    net = net.to(memory_format=way.memory_format)
    dgc.set_backend(net, way.backend)  # type: ignore[arg-type]
    kind = GraphUpdater if cell.graph else Updater
    rule = kind(
        module=net,
        forward=net,
        optimizer=make_optimizer(OptimSection(lr=0.1), net, torch.zeros(1, device=device)),
        scaler=torch.amp.GradScaler(device.type, enabled=False),
        ranks=Ranks(0, 1, 0, device),
        amp=amp,
        gate_weight=1e-5,
        accumulate=1,
        memory_format=way.memory_format,
    )
    images = images.to(memory_format=way.memory_format)
    return lambda: void(rule.step(images, labels, 0.01, PROGRESS, cell.batch))


def void(_: object) -> None:
    """The row stays on the device."""


def measure(cell: StepCell, device: torch.device) -> dict[str, Any]:
    """One row; an error is its text."""
    began = time.perf_counter()
    row: dict[str, Any]
    try:
        cuda = device.type == "cuda"
        if cuda:
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats()
        step = stepper(cell, device)
        for _ in range(WARM_UP + 1 if cell.graph else WARM):
            step()
        row = {
            **told(milliseconds(step, device, STEPS)),
            "peak_mb": round(torch.cuda.max_memory_allocated() / 1e6) if cuda else None,
            "reserved_mb": round(torch.cuda.max_memory_reserved() / 1e6) if cuda else None,
        }
    except Exception as error:  # noqa: BLE001  a row that fails is told, and the next one measured
        row = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return {**cell._asdict(), **row, "seconds": round(time.perf_counter() - began, 1)}


def cells(networks: list[str], batches: list[int], precisions: list[str]) -> Iterator[StepCell]:
    """The most telling first: time may run out."""
    shapes = [(n, b, p) for b in batches for n in networks for p in precisions]
    for ways in (("triton", "dense_channels_last"), ("dgc", "dense")):
        for shape in shapes:
            for way in ways:
                for graph in (True, False):
                    yield StepCell(*shape, way, graph)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.bench.gpu_steps", description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu_steps.json"))
    a = parser.parse_args(argv)
    device = torch.device(a.device)
    networks = a.network or ["densenet86", "condensenet"]
    planned = cells(networks, a.batch or [64], a.precision or ["fp32", "bf16"])
    write_rows((measure(cell, device) for cell in planned), device, a.seconds, a.out)
    return 0


if __name__ == "__main__":
    run_program(main)
