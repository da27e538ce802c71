"""What two threads take for one thread's time, on cores that are free and on cores that are not:

    python -m benchmarks.busy_cores [--older LIBRARY.so] [--rounds 9] [--out benchmarks/results/busy_cores.md]

One image goes through the plan of a network, `RUNS` times in a row, with one thread and with two,
in turn; first on the machine as it is, then beside a busy loop for each of its cores. --older: a
library built from other sources with the same structures, measured between the rounds of this one.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

import dgc
from benchmarks.page import add_out, tell
from dgc.bench.machine import facts
from dgc.bench.markdown_table import markdown_table
from dgc.bench.networks import NETWORKS, build
from dgc.infer.compile import NativeModule
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library
from dgc.kernels.cpu.library import Library

RUNS = 3  # in a row
NAMES = ("densenet86", "resnet18")
HEAD = [
    "network",
    "precision",
    "kernels",
    "beside",
    "1 thread, ms",
    "2 threads, ms",
    "2 / 1",
    "worst",
]
Key = tuple[str, str, str, int]  # network, precision, kernels, threads


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def plans(names: tuple[str, ...]) -> dict[tuple[str, str], tuple[NativePlan, torch.Tensor]]:
    found = {}
    for name in names:
        side = NETWORKS[name].image
        torch.manual_seed(1)
        x = torch.randn(1, 3, side, side)
        for precision in ("float32", "int8"):
            engine = dgc.compile_for_inference(build(name, "dgc"), precision=precision)
            assert isinstance(engine, NativeModule)
            plan = engine.plan_for(x)
            assert plan is not None
            found[name, precision] = plan, x
    return found


def rounds(
    of: dict[tuple[str, str], tuple[NativePlan, torch.Tensor]],
    kernels: dict[str, Library],
    count: int,
) -> dict[Key, list[float]]:
    """Milliseconds of a run, one for each round."""
    taken: dict[Key, list[float]] = {}
    for _ in range(count):
        for (name, precision), (plan, x) in of.items():
            for label, loaded in kernels.items():
                for threads in (1, 2):
                    plan.run(x, loaded, threads)
                    start = time.perf_counter()
                    for _ in range(RUNS):
                        plan.run(x, loaded, threads)
                    seconds = (time.perf_counter() - start) / RUNS
                    taken.setdefault((name, precision, label, threads), []).append(1e3 * seconds)
    return taken


def rows(taken: dict[Key, list[float]], beside: str) -> list[list[str]]:
    lines = []
    for (name, precision, label, threads), one in taken.items():
        if threads != 1:
            continue
        two = taken[name, precision, label, 2]
        ratios = [b / a for a, b in zip(one, two, strict=True)]
        numbers = [
            statistics.median(one),
            statistics.median(two),
            statistics.median(ratios),
            max(ratios),
        ]
        lines.append([name, precision, label, beside, *(f"{n:.2f}" for n in numbers)])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--older", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--network", choices=list(NETWORKS), action="append")
    add_out(parser)
    given = parser.parse_args()
    loaded = library.load()
    if loaded is None:
        raise SystemExit("error: the kernels are not built")
    kernels = {"these": loaded}
    if given.older:
        kernels["older"] = replace(loaded, handle=ctypes.CDLL(str(given.older)), path=given.older)
    of, cores, m = plans(tuple(given.network or NAMES)), os.cpu_count() or 1, facts()
    load = os.getloadavg()[0]
    table = [HEAD, *rows(rounds(of, kernels, given.rounds), "nothing of ours")]
    with busy_loops(cores):
        table += rows(rounds(of, kernels, given.rounds), f"{cores} busy loops")
    lines = [
        "# Two threads on busy cores",
        "",
        f"`python -m benchmarks.busy_cores`; {m['cpu']}, {cores} cores, kernels {m['isa']}; one image,"
        f" {given.rounds} rounds of {RUNS} runs in turn, medians, and the worst round's ratio; load"
        f" average before {load:.1f}; {m['date']}.",
        "",
        *markdown_table(table),
    ]
    tell("\n".join(lines).rstrip() + "\n", given.out)


if __name__ == "__main__":
    main()
