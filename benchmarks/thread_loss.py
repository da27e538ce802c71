"""What a second thread does not gain in converted networks, and why: `python -m benchmarks.thread_loss [--out FILE]`.

Each network at half of its channels, one image of several sizes, in our engine with one thread and with two, in turns.
An operation of a plan is a step that both workers finish before the next one begins. On small images there is hardly
anything to compute, so what is lost there is the cost of steps; what is lost beyond it on large ones is that each worker
reads what the other has just written.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch

import dgc
from benchmarks.page import add_out, tell
from dgc.bench import machine
from dgc.bench.markdown_table import markdown_table
from dgc.hub import foreign
from dgc.infer import NativeModule
from dgc.infer.program import NativePlan
from dgc.kernels.cpu import library

NETWORKS = ("mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "regnet_y_400mf", "resnet50")
SIDES = (64, 128, 224)
ROUNDS, RUNS = 30, 5


def plan_of(name: str, side: int) -> NativePlan:
    torch.manual_seed(0)
    model = foreign.build(f"torchvision/{name}", 1000).eval()
    x_BCHW = torch.randn(1, 3, side, side)
    dgc.convert(model, x_BCHW, gate_factor=0.5)
    dgc.set_progress(model, 1.0)
    engine = dgc.compile_for_inference(model.eval())
    assert isinstance(engine, NativeModule)
    plan = engine.plan_for(x_BCHW)
    assert plan is not None
    return plan


def best(plan: NativePlan, side: int) -> tuple[float, float]:
    """Milliseconds with one thread and with two: the median of the rounds' shortest runs."""
    loaded = library.load()
    assert loaded is not None
    x_BCHW = torch.randn(1, 3, side, side)
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for threads, times in found.items():
            runs = []
            for _ in range(RUNS):
                start = time.perf_counter()
                plan.run(x_BCHW, loaded, threads)
                runs.append(time.perf_counter() - start)
            times.append(min(runs) * 1e3)
    return statistics.median(found[1]), statistics.median(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thread_loss")
    add_out(parser)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [
        [
            "network",
            "side",
            "steps",
            "1 thread, ms",
            "2 threads, ms",
            "lost, ms",
            "of 2 threads",
            "lost a step, us",
        ]
    ]
    for name in NETWORKS:
        for side in SIDES:
            plan = plan_of(name, side)
            one, two = best(plan, side)
            lost = two - one / 2
            steps = len(plan.ops)
            shown = [
                f"{one:.2f}",
                f"{two:.2f}",
                f"{lost:.2f}",
                f"{lost / two:.0%}",
                f"{lost / steps * 1e3:.1f}",
            ]
            rows.append([name, str(side), str(steps), *shown])
    lines = [
        "# What a second thread does not gain",
        "",
        machine.described(),
        "",
        f"Converted at 0.5, one image, random weights, float32; the median of n = {ROUNDS} rounds, of each the shortest of",
        f"{RUNS} runs. Lost: what two threads take beyond half of one's time (`python -m benchmarks.thread_loss`).",
        "",
        *markdown_table(rows),
        "",
    ]
    tell("\n".join(lines), given.out)


if __name__ == "__main__":
    main()
