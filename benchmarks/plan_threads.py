"""Many threads of one process, each with a plan of its own, beside as many processes and one thread
alone: whether plans stand in each other's way. Part of `python -m benchmarks.plan_files`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dgc.bench.rows import BenchRow
from dgc.runtime.plan import usable_cores

ALONE, PROCESSES, THREADS = "one thread alone", "processes", "threads of one process"
# argv: file, threads, seconds, when to begin (seconds since 1970). A plan and a thread each; answers
# are compared with the first one's all the time. Prints one line of JSON.
PROGRAM = """
import json, sys, threading, time
import numpy as np
import dgc.runtime
file, count, seconds, begin = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
plans = [dgc.runtime.load(file, threads=1, chunk=1) for _ in range(count)]
x = np.random.default_rng(0).standard_normal((1, *plans[0].shapes[0].image)).astype(np.float32)
wanted = plans[0](x)
found = [(0, 0.0, True)] * count
def work(i):
    plan = plans[i]
    same, n = np.array_equal(plan(x), wanted), 0
    time.sleep(max(0.0, begin - time.time()))
    start = time.perf_counter()
    while True:
        same, n = same and np.array_equal(plan(x), wanted), n + 1
        took = time.perf_counter() - start
        if took >= seconds:
            break
    found[i] = n, took, same
workers = [threading.Thread(target=work, args=(i,)) for i in range(count)]
late = time.time() > begin
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(json.dumps({"images_per_s": sum(n / took for n, took, _ in found),
                  "same": all(same for _, _, same in found), "late": late}))
"""


def measure(file: Path, processes: int, threads: int, seconds: float) -> dict[str, Any]:
    """So many processes at once, of so many threads each: images/s of all together."""
    # loading takes a core a fraction of a second, and nobody may begin before all have loaded
    wait = 3.0 + processes / usable_cores()
    words = [str(file), str(threads), str(seconds), str(time.time() + wait)]
    command = [sys.executable, "-c", PROGRAM, *words]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{file.name}: a process failed")
    found = [json.loads(text) for text in said]
    if any(one["late"] for one in found):
        raise SystemExit(f"{file.name}: a process was not ready when the others began")
    return {
        "images_per_s": sum(one["images_per_s"] for one in found),
        "same_bits": all(one["same"] for one in found),
    }


def rows_of(network: str, file: Path, count: int, rounds: int, seconds: float) -> list[BenchRow]:
    """One row for each way; they take turns."""
    ways = {ALONE: (1, 1), PROCESSES: (count, 1), THREADS: (1, count)}
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, each in found.items():
            each.append(measure(file, *ways[way], seconds))
    speeds = {way: [one["images_per_s"] for one in each] for way, each in found.items()}
    return [
        _row(network, way, 1 if way == ALONE else count, speeds, all(x["same_bits"] for x in each))
        for way, each in found.items()
    ]


def _row(
    network: str, way: str, plans: int, speeds: dict[str, list[float]], same: bool
) -> BenchRow:
    times = [1e3 / speed for speed in speeds[way]]
    cores = min(plans, usable_cores())
    share = statistics.median(speeds[way]) / (statistics.median(speeds[ALONE]) * cores)
    row = BenchRow(
        "plan_files", way, network, "dgc", "plan file", threads=1, batch=1, n=len(times),
        median=statistics.median(times), low=min(times), high=max(times), spread="range of rounds",
        more={"plans": plans, "same_bits": same, "cores": cores, "of_cores_alone": share},
    )  # fmt: skip
    if way != THREADS:
        return row
    # round by round: a busy minute is in both
    pairs = zip(speeds[PROCESSES], speeds[way], strict=True)
    ratios = [of_processes / own for of_processes, own in pairs]
    return replace(
        row, ratio=statistics.median(ratios), ratio_low=min(ratios), ratio_high=max(ratios),
        ratio_to=PROCESSES,
    )  # fmt: skip


def is_one(row: BenchRow) -> bool:
    return "plans" in row.more


def markdown(rows: Sequence[BenchRow]) -> list[str]:
    """The table of such rows; nothing where there are none."""
    if not rows:
        return []
    lines = [
        "",
        "## Many plans at once",
        "",
        "Threads of one process, each with a plan of its own that computes in one thread, beside as"
        " many processes that do the same, and one thread alone; in turns, batch 1. Images/s of all"
        " together; time an image of the threads over that of the processes (median and range of the"
        " rounds; below 1 threads are faster); images/s over those of one thread alone times the cores that so many"
        " threads can use. Every answer was compared with the first one's, bit for bit.",
        "",
        "| network | | plans | images/s | / processes | of cores x alone | same bits | n |",
        "|---|---|--:|--:|--:|--:|---|--:|",
    ]
    for row in rows:
        if row.median is None:
            continue
        e, beside = row.more, "-"
        if row.ratio is not None:
            beside = f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
        lines.append(
            f"| {row.network} | {row.name} | {e['plans']} | {1e3 / row.median:.1f}"
            f" | {beside} | {e['of_cores_alone']:.2f} of {e['cores']}"
            f" | {'yes' if e['same_bits'] else 'NO'} | {row.n} |"
        )
    return lines
