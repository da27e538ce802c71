"""One run of the inference benchmark: a network at a batch size with a number of threads, all
contenders in turn.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from dgc.bench.contenders import MAKERS
from dgc.bench.named import contender
from dgc.bench.networks import NETWORKS
from dgc.bench.rows import BenchRow
from dgc.bench.timing import interleaved

REFERENCE = "dense_eager"


def measure(
    network: str,
    batch: int,
    threads: int,
    wanted: list[str],
    budget_s: float,
    *,
    machine: str,
    run: str,
) -> list[BenchRow]:
    """Milliseconds per image of every wanted contender
    that is installed; why not, for the others.
    """
    torch.set_num_threads(threads)
    # Noise, and random weights (dgc.bench.networks): what is timed does not depend on what an image
    # shows, only on how many channels are off, which the schedule says.
    torch.manual_seed(1)
    side = NETWORKS[network].image
    x = torch.randn(batch, 3, side, side)
    calls, missing = {}, {}
    for name in wanted:
        try:
            # All are made before any is timed, so that compiling and exporting is in nobody's time.
            calls[name] = MAKERS[name](network, x, threads)
        except ImportError as e:
            missing[name] = f"{e.name} is not installed (pip install 'dgcctl[bench]')"
    samples = interleaved(calls, batch, budget_s)
    dense = samples.get(REFERENCE)

    def row(name: str) -> BenchRow:
        return BenchRow(
            benchmark="inference", network=network, batch=batch, threads=threads, machine=machine,
            run=run,
            **contender(name),
        )  # fmt: skip

    rows = [
        replace(
            row(name),
            n=sample.n,
            median=sample.median,
            low=sample.low,
            high=sample.high,
            ratio=sample.median / dense.median if dense else None,
            ratio_to=REFERENCE if dense else None,
        )
        for name, sample in samples.items()
    ]
    return rows + [replace(row(name), why_not=why) for name, why in missing.items()]
