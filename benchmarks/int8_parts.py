"""What the parts of a network in 8 bits take, one image, one thread, and what they could not take less
than: `python -m benchmarks.int8_parts [--out benchmarks/results/int8_parts.md]`

The bound of an operation is the longer of two: its products at the peak of the instructions that
its kernel uses (the peak in float32 is measured; bytes go 4 times as fast by VNNI, 32 times by the
tiles of AMX), and the bytes of what it reads and writes (images in float32, weights in bytes, each
once) at the speed at which NumPy reads an array of 1 MiB again and again.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

import dgc
from benchmarks.page import add_out, tell
from dgc.bench.machine import facts
from dgc.bench.networks import NETWORKS, build
from dgc.infer.compile import NativeModule
from dgc.kernels.cpu import library
from dgc.kernels.cpu.library import Library
from dgc.kernels.cpu.structs import Kind, Op

ROUNDS = 60
VNNI, TILES = 4, 32  # products of bytes in the time of one in float32
FEW_FOURS, DEEP_ENOUGH, EIGHT = 5, 64, 8  # as in infer/int8/conv8.h
GATES = (Kind.ROWS16, Kind.GATES16, Kind.SELECT)
TOLD = (Kind.STATS, Kind.READERS)


def part_of(op: Op) -> str:
    if op.kind == Kind.CONV8:
        if op.channels == 3:
            return "stem"
        kind = f"{round(op.taps**0.5)}x{round(op.taps**0.5)}"
        return f"dynamic {kind}" if op.dynamic else f"static {kind}"
    if op.kind in GATES:
        return "gates, selection, classifier"
    if op.kind in TOLD:
        return "means and maxima"
    name = Kind(op.kind).name.lower()
    return {"pack": "images in another layout", "pool": "pooling"}.get(name, "the rest")


def kept(op: Op) -> int:
    return int(op.channels - op.inactive if op.dynamic else op.channels // max(1, op.heads))


def macs(op: Op) -> int:
    if op.kind != Kind.CONV8:
        return 0
    written = op.unpooled if op.unpooled.phases else op.dst
    return int(kept(op) * op.outs * op.heads * op.taps * written.height * written.width)


def by_tiles(op: Op, has_tiles: bool) -> bool:
    fours = -(-kept(op) // 4)
    return has_tiles and fours >= FEW_FOURS and fours * op.taps >= DEEP_ENOUGH and op.outs > EIGHT


def moved(op: Op) -> int:
    """Bytes that the operation has to read and write at least once."""
    total = sum(4 * t.channels * t.height * t.width for t in (op.src, op.dst))
    if op.has_residual:
        total += 4 * op.dst.channels * op.dst.height * op.dst.width
    if op.kind == Kind.CONV8:
        total += kept(op) * op.outs * op.heads * op.taps
    if op.kind == Kind.ROWS16:
        total += 2 * op.channels * op.outs
    if op.kind == Kind.GATES16:
        total += 2 * op.channels * op.heads * op.hidden
    return int(total)


def bandwidth() -> float:
    """Bytes a second at which an array of 1 MiB is read again and again."""
    x = np.ones(1 << 18, np.float32)
    best = float("inf")
    for _ in range(200):
        start = time.perf_counter()
        x.max()
        best = min(best, time.perf_counter() - start)
    return x.nbytes / best


def measured(name: str, loaded: Library) -> tuple[list[Op], np.ndarray, float]:
    """Operations, the best time of each, and the median of whole runs, in seconds."""
    side = NETWORKS[name].image
    torch.manual_seed(1)
    x = torch.randn(1, 3, side, side)
    engine = dgc.compile_for_inference(build(name, "dgc"), precision="int8")
    assert isinstance(engine, NativeModule)
    plan = engine.plan_for(x)
    assert plan is not None
    found, whole = np.zeros((ROUNDS, len(plan.ops))), []
    for seconds in found:
        plan.run(x, loaded, 1)
        start = time.perf_counter()
        plan.run(x, loaded, 1, seconds)
        whole.append(time.perf_counter() - start)
    ops = list(plan.ops)
    return ops, found.min(axis=0), min(whole)


def rows(name: str, loaded: Library, peak: float, speed: float) -> list[str]:
    ops, best, whole = measured(name, loaded)
    tiles = "amx" in loaded.choice.features
    parts: dict[str, list[float]] = {}
    for op, seconds in zip(ops, best, strict=True):
        times = TILES if by_tiles(op, tiles) else VNNI
        compute, memory = macs(op) / (peak * times), moved(op) / speed
        own = parts.setdefault(part_of(op), [0.0, 0.0, 0.0, 0.0])
        for i, value in enumerate((seconds, compute, memory, max(compute, memory))):
            own[i] += 1e6 * value
    total = [sum(column) for column in zip(*parts.values(), strict=True)]
    order = sorted(parts.items(), key=lambda item: -item[1][0])
    return [
        f"| {name} | {part} | {v[0]:.0f} | {v[0] / (1e4 * whole):.0f} % | {v[1]:.0f} | {v[2]:.0f}"
        f" | {v[3]:.0f} |"
        for part, v in order
    ] + [
        f"| | **all parts, of {1e6 * whole:.0f}** | {total[0]:.0f} | {total[0] / (1e4 * whole):.0f} %"
        f" | {total[1]:.0f} | {total[2]:.0f} | {total[3]:.0f} |"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_out(parser)
    given = parser.parse_args()
    loaded = library.load()
    if loaded is None:
        raise SystemExit("error: the kernels are not built")
    peak, speed, m = loaded.peak() * 1e9, bandwidth(), facts()
    lines = [
        "# The parts of a network in 8 bits",
        "",
        f"`python -m benchmarks.int8_parts`; {m['cpu']}, kernels {m['isa']}"
        f" {' '.join(loaded.choice.features)}; one image, one thread, microseconds, the best of"
        f" {ROUNDS}; {m['date']}. Float32 peak of a core {peak / 1e9:.0f} GMAC/s,"
        f" {speed / 1e9:.0f} GB/s from an array of 1 MiB. Bound: for each operation the longer of"
        " products and bytes.",
        "",
        "| network | part | takes | of the whole | products alone | bytes alone | bound |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name in ("resnet18", "condensenet", "densenet86"):
        lines += rows(name, loaded, peak, speed)
    tell("\n".join(lines) + "\n", given.out)


if __name__ == "__main__":
    main()
