"""What the runs of docs/studies/cifar10_jpeg_resnet18 came to:

    python -m benchmarks.road_rows RUNS_DIR docs/studies/cifar10_jpeg_resnet18

results.csv: a row a finished run, as benchmarks.study_rows has them; curves.csv: the error after each epoch;
milliseconds.md: the trained networks of the first seed in the native engine, one thread, in turns in one process; the dense
one also in PyTorch, and in OpenVINO and ONNX Runtime where they are installed (`pip install 'dgcctl[bench]'`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import dgc
from benchmarks.road_study import CELLS
from benchmarks.study_rows import FACTS, curves, facts, write
from dgc import settings
from dgc.bench import machine, timing
from dgc.bench.contenders import torch_call
from dgc.bench.foreign_networks import dense_calls
from dgc.bench.markdown_table import markdown_table
from dgc.hub.load_weights import open_run
from dgc.run.files import atomic_write
from dgc.run.status import State
from dgcctl.core.runs import listing
from dgcctl.core.runs.record import RunRecord, read_record

BATCHES, BUDGET_S = (1, 64), 20.0


def cell_of(record: RunRecord) -> str | None:
    """`quarter-0`: which cell and seed a run is of."""
    names = {cell.tag(seed) for cell in CELLS for seed in range(3)}
    return next((tag for tag in record.recipe.get("tags") or () if tag in names), None)


def turns(models: dict[str, nn.Module], x_BCHW: Tensor) -> dict[str, Callable[[], object]]:
    """Each network in the native engine, the dense one also in the engines of others that are installed."""
    found: dict[str, Callable[[], object]] = {
        f"{name}, native": torch_call(dgc.compile_for_inference(model, strict=True), x_BCHW)
        for name, model in models.items()
    }
    for name, call in dense_calls(models["dense"], x_BCHW, 1).items():
        found[f"dense, {name.removeprefix('dense_')}"] = call
    return found


def milliseconds(networks: dict[str, RunRecord]) -> str:
    """The page: how long each network takes an image, and how many multiply-adds it executes."""
    models = {name: open_run(record.run).model.eval() for name, record in networks.items()}
    torch.set_num_threads(1)
    found = []
    for batch in BATCHES:
        x_BCHW = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(timing.interleaved(turns(models, x_BCHW), batch, BUDGET_S))
    rows = [
        [
            "network, engine",
            "top-1 error",
            "MACs executed",
            *(f"batch {n}, ms an image" for n in BATCHES),
        ]
    ]
    for name in found[0]:
        times = [f"{samples[name].median:.3f} (n = {samples[name].n})" for samples in found]
        metrics = networks[name.partition(",")[0]].metrics
        rows.append(
            [name, f"{metrics['top1_error']:.2f} %", f"{metrics['macs_executed']:,}", *times]
        )
    return "\n".join(
        [
            "# Milliseconds of the trained networks of seed 0",
            "",
            machine.described(),
            "",
            "Float32, one thread, medians of n rounds in which all took turns in one process.",
            "",
            *markdown_table(rows),
            "",
        ]
    )


def main(runs: Path, out: Path) -> None:
    os.environ[settings.TRUST_CODE] = "benchmarks"  # where the network of these recipes is
    records = [read_record(run.dir) for run in listing.list_runs(runs)]
    ended = {
        cell: record
        for record in records
        if record.state in (State.DONE, State.FAILED) and (cell := cell_of(record)) is not None
    }
    order = [cell.tag(seed) for seed in range(3) for cell in CELLS]
    named = {cell: ended[cell] for cell in order if cell in ended}
    rows = ({"cell": cell, **facts(record)} for cell, record in named.items())
    write(out / "results.csv", ("cell", "run", *FACTS), rows)
    write(
        out / "curves.csv",
        ("run", "epoch", "step", "top1_error", "loss"),
        curves([*named.values()]),
    )
    first = {
        c.removesuffix("-0"): r for c, r in named.items() if c in ("dense-0", "half-0", "quarter-0")
    }
    atomic_write(out / "milliseconds.md", milliseconds(first).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
