"""Per operation of the native plan: milliseconds and GMAC/s, batch 1."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from dgc.bench.networks import NETWORKS, build
from dgc.bench.timing import REST_S
from dgc.infer.compile import NativeModule
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.kernels.cpu.library import Library
from dgc.kernels.cpu.structs import Kind, Op

CONVOLUTIONS = (Kind.CONV, Kind.WINO)


def _plan(name: str) -> tuple[NativePlan | None, Library | None, Tensor]:
    """The network's plan for one image, what runs it,
    and the image; None where there are no kernels.
    """
    side = NETWORKS[name].image
    x = torch.randn(1, 3, side, side)
    return NativeModule(build(name, "dgc")).plan_for(x), library.load(), x


def table(name: str, rounds: int = 10) -> list[dict[str, object]]:
    """One row for each convolution (with what it multiplies), and one for all operations of each
    other kind: the best of the rounds, one thread.
    """
    plan, loaded, x = _plan(name)
    if plan is None or loaded is None:
        return []
    found = np.zeros((rounds, len(plan.ops)))
    for seconds in found:
        plan.run(x, loaded, 1, seconds)
    best = found.min(axis=0)
    convolutions = [
        _row(op, t * 1e3) for op, t in zip(plan.ops, best, strict=True) if op.kind in CONVOLUTIONS
    ]
    return convolutions + _others(list(plan.ops), best)


def states(name: str, rounds: int = 25) -> list[dict[str, object]]:
    """What the first thread spends in each kind of operation, median:
    1 thread, 2 threads, 2 after a rest.
    """
    plan, loaded, x = _plan(name)
    if plan is None or loaded is None:
        return []
    columns = {}
    for column, threads, rest in (
        ("1 thread", 1, 0.0),
        ("2 threads", 2, 0.0),
        ("2 threads, rested", 2, REST_S),
    ):
        found = np.zeros((rounds, len(plan.ops)))
        for seconds in found:
            # After a rest threads have to be woken and caches are
            # cold, as in a program that is asked now and then.
            time.sleep(rest)
            plan.run(x, loaded, threads, seconds)
        columns[column] = np.median(found, axis=0) * 1e3
    rows: dict[str, dict[str, object]] = {}
    for i, op in enumerate(plan.ops):
        kind = Kind(op.kind).name.lower() + (
            f", {op.dst.height}x{op.dst.width}" if op.kind in CONVOLUTIONS else ""
        )
        row = rows.setdefault(kind, {"kind": kind} | dict.fromkeys(columns, 0.0))
        for column, ms in columns.items():
            row[column] = round(float(row[column]) + float(ms[i]), 4)  # type: ignore[arg-type]
    return list(rows.values())


def _row(op: Op, ms: float) -> dict[str, object]:
    kept = op.channels - op.inactive if op.dynamic else op.channels // op.heads
    macs = kept * op.outs * op.heads * op.taps * op.dst.height * op.dst.width
    floats = (
        op.channels * op.src.height * op.src.width
        + op.outs * op.heads * op.dst.height * op.dst.width
    )
    # Of the weights only those of channels that are on: the others are not read.
    floats += kept * op.outs * op.heads * op.taps
    return {
        "kind": ("dynamic" if op.dynamic else "static")
        + (", Winograd" if op.kind == Kind.WINO else ""),
        "channels": op.channels,
        "kept": kept,
        "outputs": op.outs * op.heads,
        "heads": op.heads,
        "taps": op.taps,
        "size": f"{op.dst.height}x{op.dst.width}",
        "ms": round(float(ms), 4),
        "gmacs": round(float(macs / ms / 1e6), 1),
        "macs_per_byte": round(macs / (4 * floats), 2),
    }


def _others(
    ops: list[Op], seconds: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> list[dict[str, object]]:
    totals: dict[str, float] = {}
    for op, t in zip(ops, seconds, strict=True):
        if op.kind not in CONVOLUTIONS:
            kind = Kind(op.kind).name.lower()
            totals[kind] = totals.get(kind, 0.0) + t * 1e3
    return [
        {"kind": kind, "ms": round(float(ms), 4)}
        for kind, ms in sorted(totals.items(), key=lambda kv: -kv[1])
    ]
