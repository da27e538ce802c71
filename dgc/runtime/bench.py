"""`python -m dgc.runtime.bench FILE`: how long a plan takes to load, its first image, and the
others; and how much memory the process has then. Without torch.

    python -m dgc.runtime.bench FILE [--batch 1] [--threads 1] [--seconds 5] [--json OUT]

OUT = {"file", "load_ms", "first_ms", "rows": [{"image", "batch", "threads", "n", "median", "low",
"high"}], "resident_mb"}; times of a row in ms an image, quartiles.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from dgc.errors import DgcError, ResourceError, system_error
from dgc.runtime.plan import Plan, load
from dgc.talk import put, run_program, say, say_error


def measure(
    file: Path, batches: Sequence[int], threads: Sequence[int], seconds: float
) -> dict[str, Any]:
    """All of it, in this process."""
    start = perf_counter()
    plan = load(file, threads=threads[0], chunk=max(batches))
    loaded = perf_counter()
    # The first image apart: memory is made and the file's pages are read from the disk then.
    plan(np.zeros((1, *plan.shapes[0].image), np.float32))
    first = perf_counter()
    rows = [
        _row(load(file, threads=count, chunk=batch), batch, count, seconds)
        for count in threads
        for batch in batches
    ]
    times = {"load_ms": (loaded - start) * 1e3, "first_ms": (first - loaded) * 1e3}
    return {"file": plan.name, **times, "rows": rows, "resident_mb": resident_mb()}


def _row(plan: Plan, batch: int, threads: int, seconds: float) -> dict[str, Any]:
    image = plan.shapes[0].image
    say(f"measuring {plan.name}: threads {threads}, batch {batch}, {seconds:g} s")
    try:
        x = np.random.default_rng(0).standard_normal((batch, *image), np.float32)
        plan(x)
    except (MemoryError, ValueError) as error:  # NumPy's for more than can be counted
        raise ResourceError(
            f"{plan.name}: not enough memory for {batch} images at once: ask for a smaller --batch"
        ) from error
    found: list[float] = []
    end = perf_counter() + seconds
    while len(found) < 5 or perf_counter() < end:
        start = perf_counter()
        plan(x)
        found.append((perf_counter() - start) * 1e3 / batch)
    low, median, high = (float(q) for q in np.percentile(found, (25, 50, 75)))
    spread = {"n": len(found), "median": median, "low": low, "high": high}
    return {"image": list(image), "batch": batch, "threads": threads, **spread}


def resident_mb() -> float | None:
    """Memory of this process that is in RAM, mapped files included;
    None where Linux does not say.
    """
    try:
        # statm and not ru_maxrss: what is held now, and not the most that ever was.
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    import resource

    return pages * resource.getpagesize() / 1e6


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dgc.runtime.bench")
    parser.add_argument("file", type=Path)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    try:
        found = measure(given.file, given.batch or [1], given.threads or [1], given.seconds)
        text = json.dumps(found, indent=2)
        if given.json:
            given.json.write_text(text)
        else:
            put(text)
    except (DgcError, OSError) as error:
        refused = error if isinstance(error, DgcError) else system_error(error)
        say_error(refused)
        return int(refused.exit_code)
    return 0


if __name__ == "__main__":
    run_program(main)
